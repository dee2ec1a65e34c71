"""The distillation spec: stages in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from . import yamlfile
from .files import write_atomic
from .record import Record

LossName = Literal["feature", "output", "task"]


class Loss(Record):
    """One term of a stage's loss. `normalised` divides by the target's mean square, so that spans
    weigh alike.

    mask_sigma k leaves out what in the target lies more than k standard deviations from its mean:
    the massive activations that would rule the feature loss (masked RepKD of TinyFusion, arXiv
    2412.01199). None leaves nothing out.
    """

    weight: float = 1.0
    form: Literal["plain", "normalised"] = "normalised"
    mask_sigma: float | None = Field(default=None, gt=0)


class Timesteps(Record):
    """Which noise levels s in (0, 1) a stage trains on; 1 is pure noise.

    logit-normal: s = sigmoid(N(mean, std)). mode: the heavy-tailed density of the same paper with
    `scale` (SD3, arXiv 2403.03206, section 3.1). trajectory: the levels of the teacher's own
    sampler, evenly. Then s -> shift s / (1 + (shift - 1) s), which a trajectory does not need: its
    levels are shifted as the sampler's are.
    """

    kind: Literal["logit-normal", "uniform", "mode", "trajectory"] = "logit-normal"
    mean: float = 0.2
    std: float = Field(default=1.1, gt=0)
    scale: float = 1.29
    shift: float = Field(default=1.0, gt=0)


def _feature() -> dict[LossName, Loss]:
    return {"feature": Loss()}


class Stage(Record):
    """One distillation stage (DESIGN section 6).

    train `single`: blocks that the plan makes single-stream (the first stage of a hybrid; `merged`
    means all that a plan changes). data: a prompt file, an image folder, shards, or `scenes`; None
    is what the run was given. guidance: the teacher's guided prediction is the output target, with
    classifier-free guidance of this scale; where the model takes its guidance as a number (FLUX),
    it is that number for both. A pair is drawn from evenly, sample by sample. `batch` counts all
    processes.
    """

    name: str
    teacher: Literal["original", "parent"] = "original"
    inputs: Literal["teacher", "student"] = "teacher"
    gradient: Literal["span", "full"] = "span"
    target: Literal["span-end", "own-block"] = "span-end"
    losses: dict[LossName, Loss] = Field(default_factory=_feature)
    train: Literal["merged", "single", "after-first-cut", "all"] | dict[str, list[int]] = "merged"
    scale: Literal["none", "inverse-sensitivity", "binary"] = "none"
    data: str | None = None
    timesteps: Timesteps = Timesteps()
    guidance: float | tuple[float, float] | None = None
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

    @field_validator("timesteps", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.losses:
            raise ValueError(f"stage {self.name!r} has no loss")
        if self.gradient == "span" and set(self.losses) != {"feature"}:
            raise ValueError(
                f"stage {self.name!r}: gradient 'span' can follow the feature loss only"
            )
        if self.inputs == "teacher" and self.gradient == "full":
            raise ValueError(
                f"stage {self.name!r} feeds blocks the teacher's states and wants "
                f"the full gradient; say inputs: student, "
                "or gradient: span"
            )
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
