"""The student's card, and comparisons."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from .record import Record


class Card(Record):
    """`card.json` of a student folder: where it came from, back to the original teacher."""

    what: ClassVar[str] = "card"
    teacher: str  # the direct parent, as given
    teacher_fingerprint: str
    original: str  # the first teacher of the chain
    original_fingerprint: str
    plan: dict[str, Any]
    original_plan: dict[str, Any] | None = None
    spec: dict[str, Any] | None = None
    sensitivity: str | None = None
    parameters: int
    teacher_parameters: int
    original_parameters: int
    stock: bool = True
    metrics: dict[str, Any] = Field(default_factory=dict)
    chain: list[dict[str, Any]] = Field(default_factory=list)


class ModelResult(Record):
    """One model's figures in a comparison."""

    name: str
    source: str
    parameters: int
    bytes: int
    ms_per_step: float
    scores: dict[str, dict[str, Any]]  # scorer -> {overall, low, high, <category>: ...}
    retention: dict[str, float | None]  # scorer -> share of the first model's overall score
    # scorer -> paired difference to the first model
    difference: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Comparison(Record):
    """Models x prompts x seeds; images lie beside it as PNG."""

    what: ClassVar[str] = "comparison"
    suite: str
    prompts: list[str]
    seeds: list[int]
    steps: int
    guidance: float
    size: int
    models: list[ModelResult]
    # model -> file names, one per prompt x seed
    images: dict[str, list[str]] = Field(default_factory=dict)
    seconds: float = 0.0
