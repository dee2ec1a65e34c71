"""Values that people write as text and that specs hold as data: lists, block numbers, sizes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def split_names(value: Any) -> Any:
    """ "drop, merge" -> ["drop", "merge"]; a list stays as it is."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def split_rows(value: Any) -> Any:
    """ "amber, gain; -80 %, demo" -> ["amber, gain", "-80 %, demo"]: names that hold commas."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(";") if item.strip()]
    return value


def split_blocks(value: Any) -> Any:
    """ "0,1,23" -> [0, 1, 23]."""
    if not isinstance(value, str):
        return value
    try:
        return [int(item) for item in split_names(value)]
    except ValueError:
        raise ValueError("block numbers with commas, like 0,1,23") from None


def split_keep(value: Any) -> Any:
    """ "12" -> 12; "transformer_blocks=12,single_blocks=6" -> a count per stack."""
    if not isinstance(value, str):
        return value
    counts: dict[str, int] = {}
    try:
        if "=" not in value:
            return int(value)
        for item in split_names(value):
            stack, _, count = item.partition("=")
            counts[stack.strip()] = int(count)
    except ValueError:
        raise ValueError("a number like 12, or STACK=N,STACK=N") from None
    return counts


def parse_gain(value: Any) -> Any:
    """ "2" -> 2.0; "length" stays."""
    if not isinstance(value, str) or value == "length":
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError("a number like 2, or length") from None


def parse_rank(value: Any) -> Any:
    """ "8" -> 8; "auto" stays."""
    if not isinstance(value, str) or value == "auto":
        return value
    try:
        return int(value)
    except ValueError:
        raise ValueError("a number of directions, or auto, like 8") from None


TIMESTEP_WEIGHTS = ("normalised", "uniform", "high-noise", "low-noise")
PLAN_EDITS = ("join", "slim", "single", "parts", "modulation")  # what measuring rules may do
RANKS = ("4", "8", "16", "32", "64", "auto")  # to offer; any number of directions will do
GAINS = ("1", "2", "3", "length")  # to offer; any positive number will do
Names = Annotated[list[str], BeforeValidator(split_names)]
RowNames = Annotated[list[str], BeforeValidator(split_rows)]
Blocks = Annotated[list[int], BeforeValidator(split_blocks)]
Keep = Annotated[int | dict[str, int], BeforeValidator(split_keep)]
Gain = Annotated[float | Literal["length"], BeforeValidator(parse_gain)]
Rank = Annotated[int | Literal["auto"], BeforeValidator(parse_rank)]
Precision = Literal["bf16", "fp16", "fp32"]
