"""What a sensitivity map costs: `python benchmarks/scan.py [--json]`.

Cached against naive scan: ratio is the CPU seconds of the cached scan over those of the naive one
(median over repeats of pairs run one after the other); CPU seconds, because on a shared machine the
clock on the wall measures the neighbours. The wall's seconds are given too. block_ratio: block
forwards likewise; it does not depend on the machine. max_relative_difference: of the scores.
Models: random 24- and 60-block Qwen-Image transformers, and the bundled teacher; the figures on top
are the 60-block model's.

`generation`: the way HierarchicalPrune's analysis works, a full generation per ablation, on the
bundled teacher with the same prompts: some ablations are timed between the scans, and their mean
counts for every block.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.tiny import tiny_inputs, tiny_transformer  # noqa: E402
from workbench import models  # noqa: E402
from workbench.models import Call  # noqa: E402
from workbench.models.blocks import forwards  # noqa: E402
from workbench.records import SensitivityMap  # noqa: E402
from workbench.sensitivity.edits import parse_edit  # noqa: E402
from workbench.sensitivity.profiling import naive_profile, profile  # noqa: E402
from workbench.sensitivity.scan import Scan  # noqa: E402

EDITS = ("drop", "merge")
PROMPTS = [
    "a red circle and a blue square on a white background",
    "three green triangles on a black background",
] * 4
HOW: dict[str, Any] = {"seeds": range(len(PROMPTS)), "steps": 9, "guidance": 3.5, "size": 128}
TIMESTEPS = 3


def random_model(depth: int) -> tuple[torch.nn.Module, list[Call]]:
    """A narrow model, so that the benchmark ends; the ratio of block forwards is that of a wide
    one.
    """
    model = tiny_transformer(depth, heads=2, head_dim=32, z_dim=8, text_dim=64)
    inputs = tiny_inputs(batch=4, text=16, grid=(4, 4), z_dim=8, text_dim=64)
    return model, [Call(inputs, 500.0, 0, 4, "cond")]


def bundled_calls(pipe: models.Pipeline) -> list[Call]:
    """Three timesteps of the demo teacher's own trajectories."""
    return [
        call
        for call in models.trajectories(pipe, PROMPTS, timesteps=TIMESTEPS, **HOW)
        if call.branch == "cond"
    ]


def scan(
    model: torch.nn.Module, calls: list[Call], cached: bool, edits: tuple[str, ...] = EDITS
) -> tuple[SensitivityMap, float]:
    """The map, and the CPU seconds it took."""
    run = profile if cached else naive_profile
    began = time.process_time()
    record = list(run(model, models.describe_module(model), calls, edits=edits))[-1].result
    return record, time.process_time() - began


def measure(name: str, model: torch.nn.Module, calls: list[Call], repeats: int) -> dict[str, Any]:
    scan(model, calls[:1], cached=True)  # warm up
    pairs = []
    for number in range(repeats):
        order = (True, False) if number % 2 else (False, True)
        done = {cached: scan(model, calls, cached) for cached in order}
        pairs.append((done[True], done[False]))
    cached, naive = (record for record, _ in pairs[-1])
    difference = max(
        abs(a.score - b.score) / max(abs(b.score), 1e-30)
        for a, b in zip(cached.rows, naive.rows, strict=True)
    )
    return {
        "name": name,
        "depth": sum(len(stack) for stack in models.blocks_of(model).values()),
        "calls": len(calls),
        "seconds_cached": median(a.seconds for (a, _), _ in pairs),
        "seconds_naive": median(b.seconds for _, (b, _) in pairs),
        "ratio": median(a / b for (_, a), (_, b) in pairs),
        "block_ratio": cached.block_evaluations / cached.naive_block_evaluations,
        "max_relative_difference": difference,
    }


def generation(pipe: models.Pipeline, ablations: int) -> dict[str, Any]:
    """CPU seconds of a map of single removals: by pictures (one generation an ablation, and the
    teacher's own), and by predictions.
    """
    teacher = models.describe_module(pipe.transformer)
    drop = parse_edit("drop", teacher)
    one = Scan(pipe.transformer, [drop])
    places = one.places(drop)
    chosen = places[:: max(len(places) // ablations, 1)][:ablations]

    def timed(work: Callable[[], Any]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    pictures, predictions = [], []
    for place in chosen:
        with forwards(one.changes(drop, place)):
            pictures.append(timed(lambda: list(models.generate(pipe, PROMPTS, **HOW))))
        predictions.append(
            timed(lambda: scan(pipe.transformer, bundled_calls(pipe), True, ("drop",)))
        )
    whole = mean(pictures) * (len(places) + 1)
    return {
        "ablations": len(places),
        "ablations_timed": len(chosen),
        "seconds_by_pictures": whole,
        "seconds_by_predictions": mean(predictions),
        "timesteps_by_predictions": TIMESTEPS,
        "ratio": whole / mean(predictions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; one is steadier on a shared machine"
    )
    parser.add_argument(
        "--depths",
        type=int,
        nargs="*",
        default=[60, 24],
        help="of the random models; the first one's figures on top",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        default=ROOT / "workbench" / "demo" / "weights",
        help="a pipeline folder",
    )
    parser.add_argument("--ablations", type=int, default=3, help="how many generations to time")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    rows = [
        measure(f"random-{depth}", *random_model(depth), given.repeats) for depth in given.depths
    ]
    beside = None
    if models.is_pipeline(given.teacher):
        pipe = models.load_pipeline(given.teacher)
        rows.append(measure("teacher", pipe.transformer, bundled_calls(pipe), given.repeats))
        beside = generation(pipe, given.ablations)
    top = {key: rows[0][key] for key in ("ratio", "block_ratio", "max_relative_difference")}
    if given.json:
        print(json.dumps({**top, "models": rows, "generation": beside}))
        return
    for row in rows:
        print(
            f"{row['name']:12} {row['depth']:3} blocks: cached {row['seconds_cached']:.2f} s, "
            f"naive {row['seconds_naive']:.2f} s, "
            f"ratio {row['ratio']:.3f}, block forwards {row['block_ratio']:.3f}, difference "
            f"{row['max_relative_difference']:.1e}"
        )
    if beside:
        print(
            f"{beside['ablations']} removals by pictures: {beside['seconds_by_pictures']:.0f} "
            f"CPU s; by predictions at "
            f"{beside['timesteps_by_predictions']} timesteps: "
            f"{beside['seconds_by_predictions']:.1f} CPU s; {beside['ratio']:.1f} times"
        )


if __name__ == "__main__":
    main()
