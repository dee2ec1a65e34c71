"""What streaming blocks costs and saves: `python benchmarks/placement.py [--json]`.

A Qwen-Image transformer of 60 narrow blocks is profiled twice, each time in a process of its own,
whole and streamed from the disk (the system's file cache holds it). ratio: CPU seconds of the
streamed scan, reading included, over those of the whole one. peak_ratio: of the memory that the
process grew by. peak, weights: bytes. max_difference: of the scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.big_model import profile_in_child, write_inputs, write_model  # noqa: E402


def measure(metric: str, depth: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = write_model(folder / "model", depth)
        inputs = write_inputs(folder / "calls.safetensors")
        found = {}
        for placement in ("whole", "streamed"):
            found[placement] = profile_in_child(
                folder / "model",
                inputs,
                folder / f"{placement}.json",
                metric=metric,
                placement=placement,
            )
    whole, streamed = found["whole"], found["streamed"]
    differences = []
    for one, two in zip(whole["rows"], streamed["rows"], strict=True):
        differences.append(abs(one[2] - two[2]))
    return {
        "ratio": streamed["seconds"] / whole["seconds"],
        "peak_ratio": streamed["peak"] / whole["peak"],
        "seconds": {name: each["seconds"] for name, each in found.items()},
        "peak": {name: each["peak"] for name, each in found.items()},
        "weights": weights,
        "metric": metric,
        "blocks": depth,
        "max_difference": max(differences),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--metric", default="influence", help="prediction: with edits of blocks")
    parser.add_argument("--depth", type=int, default=60)
    options = parser.parse_args()
    figures = measure(options.metric, options.depth)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
