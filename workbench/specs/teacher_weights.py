"""How a frozen teacher's weights are stored in memory: one row per way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

AS_LOADED = "as-loaded"
WeightsName = Literal["as-loaded", "bf16", "int8", "nf4"]  # what a person can ask for


@dataclass(frozen=True)
class StoredWeights:
    """One way of storing the weights of the linears in blocks.

    bits: per weight, scales of whole rows not counted.
    """

    name: str
    about: str
    bits: float


STORED_WEIGHTS: Mapping[str, StoredWeights] = {
    row.name: row
    for row in (
        StoredWeights("bf16", "Rounded to bfloat16.", 16),
        StoredWeights("int8", "8 bits, symmetric, one scale per row.", 8),
        StoredWeights("nf4", "4-bit NormalFloat, one float32 scale per 64 weights.", 4.5),
    )
}
assert get_args(WeightsName) == (AS_LOADED, *STORED_WEIGHTS)
