"""The dry run's memory against what real small runs took: `python benchmarks/dry_run.py [--json]`.

Each case trains a real student of a random Qwen-Image of small width for three steps, once for real
and once without memory. measured: the most bytes that torch's allocator held above what it held
before the models were made, from the events of torch's profiler, buffers inside operators included.
dry_run: the peak of the same stage on fake tensors. ratio: dry_run over measured; at the top level
the one that is farthest from 1. The scan's case is a sensitivity scan of the teacher.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import students, surgery  # noqa: E402
from workbench.distillation.dry_run import StepOnly, Way, dry_run, split_stage  # noqa: E402
from workbench.distillation.loop import checkpoint_blocks, prepare_models  # noqa: E402
from workbench.distillation.made_up_source import made_up_source  # noqa: E402
from workbench.distillation.processes import ALONE  # noqa: E402
from workbench.families import FAMILIES  # noqa: E402
from workbench.models import config_of  # noqa: E402
from workbench.models.block_cache import forget  # noqa: E402
from workbench.plans import Tokens  # noqa: E402
from workbench.records import Loss, Plan, Span, Stage  # noqa: E402

DEPTH = 8
CONFIG = {
    "_class_name": "QwenImageTransformer2DModel",
    "num_layers": DEPTH,
    "num_attention_heads": 4,
    "attention_head_dim": 64,
    "axes_dims_rope": [16, 24, 24],
    "joint_attention_dim": 256,
}
TOKENS = Tokens(image=256, text=32)
FED = {"inputs": "teacher", "gradient": "span", "train": "merged"}
FULL = {"inputs": "student", "gradient": "full", "train": "all", "losses": {"output": Loss()}}
CASES: dict[str, tuple[dict[str, Any], Way]] = {
    "blockwise, float32": (FED, Way()),
    "end to end, float32": (FULL, Way()),
    "end to end, average": (FULL | {"ema": 0.99}, Way()),
    "end to end, checkpointed": (FULL, Way(checkpointing=True)),
    "end to end, Muon": (FULL | {"optimizer": "muon"}, Way()),
}


def plan() -> Plan:
    spans, at = [], 0
    for length in (1, 3) * (DEPTH // 4):
        spans.append(Span(blocks=(at, at + length - 1), init="mean"))
        at += length
    return Plan(teacher="random", family="qwenimage", stacks={"transformer_blocks": spans})


def allocated(work: Callable[[], Any]) -> int:
    """The most bytes that the CPU's allocator held while `work` ran, above what it held before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    now = most = 0
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def trained(stage: Stage, way: Way) -> Callable[[], None]:
    """Three real steps, from making the models on."""

    def work() -> None:
        torch.manual_seed(0)
        cls = students.stock_class(FAMILIES["qwenimage"])
        teacher = cls.from_config(CONFIG).eval()
        student = surgery.student_transformer(teacher, plan())
        forget(teacher)  # merged blocks, kept for the next preview
        samples = made_up_source("qwenimage", config_of(teacher), TOKENS)
        prepare_models(student, [teacher], ALONE)
        if way.checkpointing:
            checkpoint_blocks(student)
        loop = StepOnly(split_stage(stage, way), plan(), teacher, student, samples)
        loop.begin()
        for _ in range(3):
            loop.advance()

    return work


def measure(name: str) -> dict[str, Any]:
    how, way = CASES[name]
    stage = Stage.model_validate({"name": "x", "steps": 100, "batch": 2, "lr": 1e-5, **how})
    changed = {"num_layers": len(plan().stacks["transformer_blocks"])}
    said = dry_run(
        stage,
        plan(),
        CONFIG,
        CONFIG | changed,
        way,
        tokens=TOKENS,
        on_gpu=False,
        teacher_dtype=torch.float32,
    )
    took = allocated(trained(stage, way))
    return {"case": name, "measured": took, "dry_run": said.bytes, "ratio": said.bytes / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name) for name in CASES]
    worst = max((row["ratio"] for row in rows), key=lambda ratio: abs(ratio - 1))
    result = {"ratio": worst, "cases": rows}
    if arguments.json:
        print(json.dumps(result))
        return
    for row in rows:
        sizes = f"measured {row['measured'] / 1e6:8.1f} MB  dry run {row['dry_run'] / 1e6:8.1f} MB"
        print(f"{row['case']:28} {sizes}  ratio {row['ratio']:.3f}")


if __name__ == "__main__":
    main()
