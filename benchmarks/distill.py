"""Block-wise teacher-fed distillation against end-to-end distillation, interleaved: `python
benchmarks/distill.py [--json]`.

Both train the same 30-block student of a 60-block teacher on the same batches with AdamW in
float32, no gradient checkpointing; the baseline trains all student blocks on the output loss.
Plans: `half-merged`, where every other student block is a span of three (as Amber's: 30 of 60
blocks dropped, half of the kept ones stand for a run), and `all-merged`, 30 pairs.

throughput_ratio: CPU seconds of an end-to-end step over those of a block-wise one (median of pairs
run one after the other); CPU seconds, because on a shared machine the clock on the wall measures
the neighbours. peak_memory_ratio: block-wise over end-to-end, of the peak of live tensor bytes
above the teacher's weights in one step with warm optimizers: every storage is counted when an
operator first returns it and until it is freed (a TorchDispatchMode, in the backward too), beside
the student's weights; buffers inside an operator are not seen. At the top level both are the first
plan's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.tiny import tiny_transformer  # noqa: E402
from workbench import surgery  # noqa: E402
from workbench.distillation.checkpoints import Checkpoints  # noqa: E402
from workbench.distillation.processes import ALONE  # noqa: E402
from workbench.distillation.run import Run  # noqa: E402
from workbench.records import DistillSpec, Loss, Plan, Span, Stage  # noqa: E402
from workbench.training.batch import PLAIN, Batch, Drawing  # noqa: E402
from workbench.training.model_inputs import inputs_of  # noqa: E402

Z, TEXT_DIM = 4, 64
BLOCKWISE = {"inputs": "teacher", "gradient": "span", "train": "merged"}
BASELINE = {"inputs": "student", "gradient": "full", "train": "all", "losses": {"output": Loss()}}


class Live(TorchDispatchMode):
    """Bytes of storages that are alive, and their peak."""

    def __init__(self, held: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0
        for tensor in held:
            self.see(tensor)

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self.see(value)
        return out


class Samples:
    """Random latents and prompts of one size."""

    two_branches = False

    def __init__(self, grid: int, text: int) -> None:
        self.grid, self.text = grid, text

    def batch(self, step: int, size: int, seed: int, how: Drawing = PLAIN) -> Batch:
        g = torch.Generator().manual_seed(1000 * seed + step)
        clean, noise = (torch.randn(size, self.grid**2, 4 * Z, generator=g) for _ in range(2))
        condition = {
            "encoder_hidden_states": torch.randn(size, self.text, TEXT_DIM, generator=g),
            "encoder_hidden_states_mask": None,
            "img_shapes": [[(1, self.grid, self.grid)]] * size,
        }
        return Batch(clean, noise, torch.rand(size, generator=g), condition, inputs_of("qwenimage"))


def plans() -> dict[str, Plan]:
    half, at = [], 0
    for length in (1, 3) * 15:
        half.append(Span(blocks=(at, at + length - 1), init="first", gain=float(length)))
        at += length
    pairs = [Span(blocks=(i, i + 1), init="first", gain=2) for i in range(0, 60, 2)]
    return {
        name: Plan(teacher="random", family="qwenimage", stacks={"transformer_blocks": spans})
        for name, spans in (("half-merged", half), ("all-merged", pairs))
    }


def started(
    teacher: nn.Module, plan: Plan, how: dict[str, Any], batch: int, samples: Samples
) -> Run:
    student = surgery.student_transformer(teacher, plan)
    stage = Stage.model_validate({"name": "x", "steps": 100, "batch": batch, "lr": 1e-5, **how})
    run = Run(
        student,
        DistillSpec(stages=[stage]),
        samples,
        {"original": (teacher, plan)},
        None,
        Checkpoints(None, 1, ALONE),
        "",
    )
    run.begin()
    return run


def tensors(run: Run) -> list[torch.Tensor]:
    state = [
        value
        for optimizer in run.optimizers
        for moments in optimizer.state.values()
        for value in moments.values()
    ]
    return [
        *run.student.parameters(),
        *run.student.buffers(),
        *(value for value in state if isinstance(value, torch.Tensor)),
    ]


def peak(run: Run, teacher: nn.Module) -> int:
    """Peak bytes of a step above the teacher's weights."""
    weights = {
        p.untyped_storage()._cdata: p.untyped_storage().nbytes()
        for p in (*teacher.parameters(), *teacher.buffers())
    }
    with Live([*teacher.parameters(), *teacher.buffers(), *tensors(run)]) as live:
        run.advance()
    return live.peak - sum(weights.values())


def seconds(run: Run) -> float:
    began = time.process_time()
    run.advance()
    return time.process_time() - began


def measure(
    name: str, teacher: nn.Module, plan: Plan, batch: int, samples: Samples, repeats: int
) -> dict[str, Any]:
    teacher.requires_grad_(False)
    runs = {
        "block-wise": started(teacher, plan, BLOCKWISE, batch, samples),
        "end-to-end": started(teacher, plan, BASELINE, batch, samples),
    }
    for run in runs.values():
        run.advance()  # warms up, and makes the optimizer's moments
    pairs = []
    for number in range(repeats):
        order = list(runs) if number % 2 else list(runs)[::-1]
        pairs.append({kind: seconds(runs[kind]) for kind in order})
    peaks = {kind: peak(run, teacher) for kind, run in runs.items()}
    return {
        "name": name,
        "throughput_ratio": median(p["end-to-end"] / p["block-wise"] for p in pairs),
        "peak_memory_ratio": peaks["block-wise"] / peaks["end-to-end"],
        "peak_bytes": peaks,
        "seconds": {kind: median(p[kind] for p in pairs) for kind in runs},
        "trained_blocks": {
            kind: len({n.split(".")[1] for n in run.params if "blocks" in n})
            for kind, run in runs.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--depth", type=int, default=60, choices=[60])
    parser.add_argument("--heads", type=int, default=4, help="of 64 channels each")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--grid", type=int, default=12, help="image tokens a side")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    teacher = tiny_transformer(
        given.depth, heads=given.heads, head_dim=64, z_dim=Z, text_dim=TEXT_DIM
    )
    samples = Samples(given.grid, 16)
    rows = {
        name: measure(name, teacher, plan, given.batch, samples, given.repeats)
        for name, plan in plans().items()
    }
    first = rows["half-merged"]
    result = {
        "throughput_ratio": first["throughput_ratio"],
        "peak_memory_ratio": first["peak_memory_ratio"],
        "plans": rows,
        "width": 64 * given.heads,
        "batch": given.batch,
        "tokens": given.grid**2 + 16,
        "dtype": "float32",
        "memory": "live tensor bytes, counted by a TorchDispatchMode, above the teacher's weights",
    }
    if given.json:
        print(json.dumps(result))
        return
    for row in rows.values():
        print(
            f"{row['name']:12} throughput x {row['throughput_ratio']:.2f}, peak memory x "
            f"{row['peak_memory_ratio']:.2f} "
            f"({row['peak_bytes']['block-wise'] / 2**20:.0f} of "
            f"{row['peak_bytes']['end-to-end'] / 2**20:.0f} MiB)"
        )


if __name__ == "__main__":
    main()
