"""The distillation spec: stages in order, each with what it trains and on which losses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from . import yamlfile
from .files import write_atomic
from .record import Record

Share = Annotated[float, Field(ge=0, lt=1)]
PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
# Terms that compare the whole model's predictions; no gradient of theirs stays within a span.
PREDICTION_LOSSES = {"output", "task"}


class Loss(Record):
    """One term of a stage's loss: its weight, and how differences become a number."""

    weight: float = Field(default=1.0, description="Factor on the term in the stage's loss.")
    form: Literal["plain", "normalised", "unit"] = Field(
        default="normalised",
        description="plain: mean squared error. normalised: that over the target's mean square, "
        "so that spans count alike. unit: squared distance of the token states after each is "
        "scaled to length 1, averaged over tokens (the released code of PPCL).",
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean",
        description="How the feature loss is taken over spans, and over the streams of a span. "
        "sum: as HierarchicalPrune and PPCL do in their released code.",
    )
    mask_sigma: float | None = Field(
        default=None,
        gt=0,
        description="Leave out target values more than so many standard deviations from their "
        "token's mean: massive activations (masked RepKD, TinyFusion, arXiv 2412.01199). "
        "Unset: none are left out.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.form == "unit" and self.mask_sigma is not None:
            raise ValueError("mask_sigma with form unit; leave one of them out")
        return self


class Timesteps(Record):
    """Which noise levels s a stage trains on; s is in (0, 1), 1 is pure noise."""

    kind: Literal["logit-normal", "uniform", "mode", "trajectory"] = Field(
        default="logit-normal",
        description="logit-normal: s = sigmoid(N(mean, std)). mode: the heavy-tailed density of "
        "SD3 (arXiv 2403.03206, section 3.1). trajectory: the levels of the teacher's sampler, "
        "evenly.",
    )
    mean: float = Field(default=0.2, description="Of the logit-normal, before the sigmoid.")
    std: float = Field(default=1.1, gt=0, description="Of the logit-normal, before the sigmoid.")
    scale: float = Field(default=1.29, description="Of mode: how much the tails weigh.")
    shift: float = Field(
        default=1.0,
        gt=0,
        description="Then s becomes shift s / (1 + (shift - 1) s), as in the samplers of flow "
        "models. Not applied to a trajectory, whose levels are shifted already.",
    )


def only_feature() -> dict[str, Loss]:
    return {"feature": Loss()}


class Stage(Record):
    """One distillation stage."""

    name: str = Field(description="Shown while it runs, and in results.")
    teacher: Literal["original", "parent"] = Field(
        default="original",
        description="Which teacher to learn from, where the student's teacher is itself a "
        "student: the first of the chain, or the direct one.",
    )
    inputs: Literal["teacher", "student"] = Field(
        default="teacher",
        description="Whose states are fed to a student block: the teacher's (teacher-fed), or "
        "the student's own.",
    )
    gradient: Literal["span", "full"] = Field(
        default="span",
        description="span: every student block learns by itself. full: end to end.",
    )
    target: Literal["span-end", "own-block"] = Field(
        default="span-end",
        description="What a student block must produce: the teacher's state after the last block "
        "of its span, or after the block that its weights come from.",
    )
    fit: Literal["none", "output-projections"] = Field(
        default="none",
        description="output-projections: before the first step, bring each changed block that "
        "trains as near to the teacher's state after its span as the last linear of its last "
        "branch can, by ridge regression on the teacher's states. Enough by itself in a stage of "
        "0 steps.",
    )
    losses: dict[str, Loss] = Field(
        default_factory=only_feature,
        min_length=1,
        description="Terms of the loss by name: feature, output, task, or a registered one.",
    )
    train: Literal["merged", "single", "after-first-cut", "all"] | dict[str, list[int]] = Field(
        default="merged",
        description="merged: blocks that the plan changes. single: blocks it makes "
        "single-stream. after-first-cut: all that runs after the first removed block (PWP of "
        "HierarchicalPrune). all: everything. Or lists of student blocks by stack.",
    )
    blocks_at_once: int | None = Field(
        default=None,
        ge=1,
        description="How many of these blocks train at a time, each group for all of the stage's "
        "steps: gradients and optimizer states of one group in memory, for one more run of the "
        "teacher per group. Only where blocks learn by themselves (inputs: teacher, gradient: "
        "span). Unset: all.",
    )
    scale: Literal["none", "inverse-sensitivity", "binary"] = Field(
        default="none",
        description="Shorter steps for sensitive blocks (SGDistill of HierarchicalPrune): by the "
        "inverse of their sensitivity, or none for those above the median.",
    )
    data: str | None = Field(
        default=None,
        description="Training data of this stage: a file of prompts, an image folder, tar "
        "shards, or `scenes`. Unset: the run's.",
    )
    timesteps: Timesteps = Field(
        default=Timesteps(), description="Which noise levels to train on, or just their kind."
    )
    guidance: float | Annotated[tuple[float, float], WithJsonSchema(PAIR)] | None = Field(
        default=None,
        description="Scale of the classifier-free guidance in the teacher's prediction, or a "
        "range to draw it from per sample. Models that take guidance as an input (FLUX) get it "
        "as that. Unset: none.",
    )
    branches: Literal["conditional", "both"] = Field(
        default="conditional",
        description="Which branches of classifier-free guidance the losses supervise. "
        "conditional: predictions with the captions, of which one in ten is left out. both: also "
        "the unconditional branch, the same noisy sample with the empty prompt, at twice the work; "
        "every loss of the stage, the feature loss too, is the mean of its values in the two. "
        "Else the guidance gap may collapse (DASH, arXiv 2606.00798).",
    )
    seed: int | None = Field(
        default=None,
        description="Of the stage's samples, their noise and noise levels. Unset: the spec's seed "
        "plus the stage's number, from 0.",
    )
    steps: int = Field(default=100, ge=0, description="Optimizer steps.")
    batch: int = Field(
        default=16, ge=1, description="Samples per forward pass, all processes together."
    )
    accumulate: int = Field(
        default=1, ge=1, description="Batches whose gradients are averaged in one optimizer step."
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices of blocks; AdamW for the rest."
    )
    optimizer_states: Literal["device", "host", "8bit"] = Field(
        default="device",
        description="Where and how AdamW's two moments (Muon's one) are kept between steps. host: in "
        "the host's memory, fetched block by block: the same weights, bit for bit. 8bit: AdamW of "
        "bitsandbytes, a quarter of the memory (needs dit-workbench[gpu]).",
    )
    betas: Annotated[tuple[Share, Share], WithJsonSchema(PAIR)] = Field(
        default=(0.9, 0.99), description="AdamW's decay rates of its two moments."
    )
    lr: float = Field(default=1e-4, gt=0, description="Learning rate at its highest.")
    warmup: int = Field(default=0, ge=0, description="Steps of linear warm-up of the rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="The learning rate after the warm-up: down towards 0?"
    )
    weight_decay: float = Field(
        default=0.0, description="Share of a weight taken off per step, times the learning rate."
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Rate of the exponential moving average of weights, which then is the "
        "result. Unset: no average.",
    )
    clip: float | None = Field(
        default=1.0, gt=0, description="Largest gradient norm of a step. Unset: no clipping."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="What forward passes compute in; weights stay float32. A CPU without "
        "bfloat16 instructions computes in float32 whatever is asked for.",
    )

    @property
    def passes(self) -> int:
        """Forward and backward passes of each sample: one for each branch that is supervised."""
        return 2 if self.branches == "both" else 1

    @field_validator("timesteps", mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gradient == "span" and PREDICTION_LOSSES & set(self.losses):
            raise ValueError(
                f"stage {self.name!r}: gradient 'span' with losses {', '.join(self.losses)}; "
                "only the feature loss stays within a span"
            )
        if self.blocks_at_once and (self.inputs, self.gradient) != ("teacher", "span"):
            raise ValueError(
                f"stage {self.name!r}: blocks_at_once where blocks depend on each other; "
                "say inputs: teacher and gradient: span"
            )
        if self.optimizer_states == "8bit" and self.optimizer != "adamw":
            raise ValueError(
                f"stage {self.name!r}: 8-bit states of {self.optimizer}; there are such of AdamW "
                "alone: say optimizer: adamw, or optimizer_states: host"
            )
        if self.inputs == "teacher" and self.gradient == "full":
            raise ValueError(
                f"stage {self.name!r}: the full gradient with inputs of the teacher; "
                "say inputs: student, or gradient: span"
            )
        return self


class DistillSpec(Record):
    """Stages in order, each with its losses and what trains."""

    what: ClassVar[str] = "distillation spec"
    name: str = Field(default="custom", description="Names the student where no -o is given.")
    seed: int = Field(default=0, description="Of the samples, their noise and noise levels.")
    stages: list[Stage] = Field(min_length=1, description="Run one after the other.")
    notes: str = Field(default="", description="For readers; the program does not use it.")

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_seed(self, number: int) -> int:
        """Of the samples of stage `number`."""
        seed = self.stages[number].seed
        return self.seed + number if seed is None else seed

    def with_stage_steps(self, counts: list[int]) -> DistillSpec:
        """The same stages with these numbers of steps; a warm-up takes at most a fifth of them."""
        stages = []
        for stage, count in zip(self.stages, counts, strict=True):
            changes = {"steps": count, "warmup": min(stage.warmup, count // 5)}
            stages.append(stage.model_copy(update=changes))
        return self.model_copy(update={"stages": stages})

    def save(self, path: Path | str) -> Path:
        """Write YAML; comments of a file that is there stay."""
        return write_atomic(Path(path), yamlfile.update(Path(path), self.model_dump(mode="json")))
