"""What a scan of Qwen-Image at 1024 x 1024 would take, on paper: `python benchmarks/scan_cost.py
[--json]`.

No model and no device: sensitivity.worked_out over the published dimensions. docs/sensitivity.md
shows the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import models, plans, sensitivity  # noqa: E402

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


def rows() -> list[dict[str, Any]]:
    with torch.device("meta"):
        teacher = models.describe_module(diffusers.QwenImageTransformer2DModel(), "Qwen/Qwen-Image")
    return [
        {"card": card, "edits": name, **sensitivity.worked_out(teacher, edits, **QWEN, **how)}
        for card, how in CARDS.items()
        for name, edits in EDITS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    if given.json:
        print(json.dumps({"rows": rows()}))
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
