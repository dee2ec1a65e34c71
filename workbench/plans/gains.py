"""The gain of a merged block: a number, or `length`, the number of blocks of its span."""

from __future__ import annotations

from typing import Literal

from ..records import BadInput

Gain = float | Literal["length"]


def parse_gain(value: object) -> Gain:
    """A gain from text or a number. Raises BadInput for what no span can have."""
    if value == "length":
        return "length"
    gain = 0.0
    if not isinstance(value, bool):
        try:
            gain = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            gain = 0.0
    if not 0 < gain < 1e4:
        raise BadInput(f"gain {value!r}", "a positive number, or length", "write it like 2")
    return gain


def gain_for(gain: Gain, length: int) -> float:
    """The gain of a span of so many blocks."""
    return float(length) if gain == "length" else gain
