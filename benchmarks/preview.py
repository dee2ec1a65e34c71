"""How long it takes to turn a loaded teacher into a plan's student, and back: `python
benchmarks/preview.py [--json]`.

ms: the largest of the medians below, of wall seconds times 1000; cpu_ms likewise, of this process's
CPU seconds: on a shared machine the clock on the wall measures the neighbours. For each plan: first
(nothing cached yet) and again, entering and leaving together, medians over --repeats. Plans where
nothing is averaged: every second block dropped; nine tenths of the blocks single-stream; every
block without a part. Models are Qwen-Image transformers of 24 and 60 blocks, narrow: re-wiring
never touches a weight, so width does not matter. ratio: cpu_ms of 60 blocks over that of 24; 2.5 is
linear.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.tiny import tiny_transformer  # noqa: E402
from workbench import surgery  # noqa: E402
from workbench.models import block_cache  # noqa: E402
from workbench.records import Plan  # noqa: E402

STACK = "transformer_blocks"

DEPTHS = (24, 60)  # blocks


def plans_of(depth: int) -> dict[str, Plan]:
    def plan(spans: list[dict[str, Any]]) -> Plan:
        return Plan.parse(
            {"teacher": "benchmark", "family": "qwenimage", "stacks": {STACK: spans}},
            "the benchmark",
        )

    return {
        "drop": plan([{"blocks": [b, b + 1]} for b in range(0, depth, 2)]),
        "single": plan(
            [
                {"blocks": b, **({"stream": "single"} if b >= depth // 10 else {})}
                for b in range(depth)
            ]
        ),
        "parts": plan(
            [{"blocks": b, "drop": ["text.mlp" if b % 2 else "mlp"]} for b in range(depth)]
        ),
    }


def once(model: nn.Module, plan: Plan) -> tuple[float, float]:
    """Wall and CPU milliseconds of one preview, in and out."""
    wall, cpu = time.perf_counter(), time.process_time()
    with surgery.applied(model, plan):
        pass
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def measure(model: nn.Module, plan: Plan, repeats: int) -> dict[str, float]:
    first, again = [], []
    for _ in range(repeats):
        block_cache.forget(model)
        first.append(once(model, plan))
        again.append(once(model, plan))
    result = {}
    for name, pairs in (("first", first), ("again", again)):
        result[f"{name}_ms"] = median(wall for wall, _ in pairs)
        result[f"{name}_cpu_ms"] = median(cpu for _, cpu in pairs)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for depth in DEPTHS:
        model = tiny_transformer(depth)
        rows += [
            {"blocks": depth, "plan": name, **measure(model, plan, given.repeats)}
            for name, plan in plans_of(depth).items()
        ]
    slowest = {}
    for depth in DEPTHS:
        slowest[depth] = max(row["first_cpu_ms"] for row in rows if row["blocks"] == depth)
    result = {
        "ratio": slowest[DEPTHS[1]] / slowest[DEPTHS[0]],
        "ms": max(row["first_ms"] for row in rows),
        "cpu_ms": max(row["first_cpu_ms"] for row in rows),
        "rows": rows,
    }
    if given.json:
        print(json.dumps(result))
        return 0
    for row in rows:
        print(
            f"{row['blocks']} blocks, {row['plan']:6}  first {row['first_ms']:5.1f} ms "
            f"({row['first_cpu_ms']:5.1f} CPU)  "
            f"again {row['again_ms']:5.1f} ms ({row['again_cpu_ms']:5.1f} CPU)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
