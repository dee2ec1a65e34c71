"""The distillation spec: stages in order."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from .. import yamlfile
from .base import Record, write_atomic

LossName = Literal["feature", "output", "task"]


class Loss(Record):
    """One term of a stage's loss. `normalised` divides by the target's mean square, so that spans weigh alike."""

    weight: float = 1.0
    form: Literal["plain", "normalised"] = "normalised"


def _feature() -> dict[LossName, Loss]:
    return {"feature": Loss()}


class Stage(Record):
    """One distillation stage (DESIGN section 6)."""

    name: str
    teacher: Literal["original", "parent"] = "original"
    inputs: Literal["teacher", "student"] = "teacher"
    gradient: Literal["span", "full"] = "span"
    target: Literal["span-end", "own-block"] = "span-end"
    losses: dict[LossName, Loss] = Field(default_factory=_feature)
    train: Literal["merged", "after-first-cut", "all"] | dict[str, list[int]] = "merged"
    scale: Literal["none", "inverse-sensitivity", "binary"] = "none"
    steps: int = Field(default=100, ge=0)
    batch: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    warmup: int = Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    ema: float | None = Field(default=None, gt=0, lt=1)
    clip: float | None = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.losses:
            raise ValueError(f"stage {self.name!r} has no loss")
        if self.gradient == "span" and set(self.losses) != {"feature"}:
            raise ValueError(f"stage {self.name!r}: gradient 'span' can follow the feature loss only")
        return self


class DistillSpec(Record):
    """Stages in order, each with its losses and what trains."""

    what: ClassVar[str] = "distillation spec"
    name: str = "custom"
    seed: int = 0
    stages: list[Stage] = Field(min_length=1)
    notes: str = ""

    def save(self, path: Path | str) -> Path:
        return write_atomic(Path(path), yamlfile.update(Path(path), self.model_dump(mode="json")))
