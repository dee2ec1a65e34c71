"""Estimated cost of a scan of Qwen-Image at 1024 x 1024: `python benchmarks/scan_cost.py [--json]`.

No model and no device: arithmetic over the published dimensions, as docs/sensitivity.md shows it.
ratio: seconds of the cached scan over those of the naive one, sampling included; on top the largest.
tests/sensitivity/test_estimate.py compares it with torch's own FLOP counter and with a real scan.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import models, plans  # noqa: E402
from workbench.records import Teacher  # noqa: E402
from workbench.sensitivity.edits import parse_edits  # noqa: E402
from workbench.sensitivity.scan import SMALL  # noqa: E402

EDITS = {"drop": ["drop"], "all": ["drop", "merge", "single", "drop:text.mlp", "int4"]}
# (1024 / 16)^2 image tokens, a prompt of some 200 words
QWEN: dict[str, Any] = {
    "tokens": plans.Tokens(image=4096, text=256),
    "width": 3072,
    "samples": 20,
    "timesteps": 8,
    "steps": 30,
}
CARDS: dict[str, dict[str, Any]] = {
    "80 GB": {"flops": 150e12, "batch": 4},  # an A100: half of its 312 TFLOP/s
    # a 4090: half of its 165; PCIe 4.0 x 16
    "24 GB": {"flops": 80e12, "batch": 4, "bandwidth": 20e9},
}


def on_paper(
    teacher: Teacher,
    edits: Sequence[str],
    *,
    tokens: plans.Tokens,
    width: int,
    samples: int,
    timesteps: int,
    batch: int,
    flops: float,
    bandwidth: float = 0.0,
    steps: int = 0,
) -> dict[str, Any]:
    """What a scan takes: seconds, bytes, block forwards. Weights and states in bf16.

    width: of a token's state. flops: what the device really does a second. bandwidth (bytes a
    second): where the weights do not fit and every block comes over the bus for each of its
    forwards, while the last one runs. steps: sampler steps per sample, two forwards each. Two FLOPs
    a multiply-add of plans.work.
    """
    depth = sum(stack.depth for stack in teacher.stacks)
    block_flops = 2 * sum(plans.work(plans.identity(teacher), teacher, tokens).values()) / depth
    cached, naive = forwards_per_call(teacher, edits, depth)
    block_bytes = 2 * max(
        stack.block_parameters(b) for stack in teacher.stacks for b in range(stack.depth)
    )
    weights = 2 * teacher.parameters
    resident = 2 * teacher.outside + 2 * block_bytes if bandwidth else weights
    states = 2 * depth * (tokens.image + tokens.text) * width * batch
    beside = block_bytes if weights >= SMALL else 0  # one edited block
    per_block = block_flops * batch / flops
    if bandwidth:
        per_block = max(per_block, block_bytes / bandwidth)
    batches = -(-samples // batch)
    calls = batches * timesteps
    sampling = batches * steps * 2 * depth
    seconds = (calls * cached + sampling) * per_block
    naive_seconds = (calls * naive + sampling) * per_block
    return {
        "ratio": seconds / naive_seconds,
        "block_flops": block_flops,
        "block_evaluations": calls * cached,
        "naive_block_evaluations": calls * naive,
        "calls": calls,
        "weights_bytes": weights,
        "block_bytes": block_bytes,
        "states_bytes": states,
        "seconds_per_block": per_block,
        "memory_bytes": resident + states + beside,
        "seconds": seconds,
        "sampling_seconds": sampling * per_block,
        "naive_seconds": naive_seconds,
    }


def forwards_per_call(teacher: Teacher, edits: Sequence[str], depth: int) -> tuple[int, int]:
    """Block forwards of one call, replaying and whole, where every edit applies to every block."""
    cached = depth
    naive = depth
    for edit in parse_edits(edits, teacher):
        removed = edit.row.blocks_removed
        for index in range(depth - 1 if edit.kind == "merge" else depth):
            cached += depth - index - removed
            naive += depth - removed
    return cached, naive


def rows() -> list[dict[str, Any]]:
    with torch.device("meta"):
        teacher = models.describe_module(diffusers.QwenImageTransformer2DModel(), "Qwen/Qwen-Image")
    result = []
    for (card, how), (name, edits) in product(CARDS.items(), EDITS.items()):
        result.append({"card": card, "edits": name, **on_paper(teacher, edits, **QWEN, **how)})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    if given.json:
        result = rows()
        print(json.dumps({"ratio": max(row["ratio"] for row in result), "rows": result}))
        return
    for row in rows():
        print(
            f"{row['card']}, {row['edits']}: {row['block_flops'] / 1e12:.2f} TFLOP and "
            f"{row['block_bytes'] / 1e9:.2f} GB a block; "
            f"{row['seconds_per_block'] * 1e3:.0f} ms a block forward; states "
            f"{row['states_bytes'] / 1e9:.1f} GB; "
            f"memory {row['memory_bytes'] / 1e9:.1f} GB; sampling "
            f"{row['sampling_seconds'] / 60:.0f} min, "
            f"{row['block_evaluations']} block forwards, {row['seconds'] / 3600:.1f} h (naive "
            f"{row['naive_seconds'] / 3600:.1f} h)"
        )


if __name__ == "__main__":
    main()
