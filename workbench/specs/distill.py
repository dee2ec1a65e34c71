"""`workbench distill`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..plugins import registry
from ..records.picture_size import Size
from . import fields
from .base import VerbSpec, option
from .placements import PlacementName
from .teacher_weights import WeightsName


class DistillVerbSpec(VerbSpec):
    """Train a student to predict what its teacher predicts."""

    verb: ClassVar[str] = "distill"
    also: ClassVar[Mapping[str, str]] = {
        "keep": "keep_checkpoints",
        "for": "devices",
        "spec": "spec_file",
    }
    gone: ClassVar[tuple[str, ...]] = ("reference",)

    student: str = option(
        about="The student to train: a folder that `workbench build` or `distill` wrote.",
        label="Student",
        positional=True,
        metavar="STUDENT",
        place="model",
    )
    out: str | None = fields.out("the trained student")
    recipe: str | None = option(
        None,
        "Recipe whose distillation stages to run.",
        label="Recipe",
        usual="workbench, where there is no --spec",
        choices=registry("recipe").names,
        place="file-or-name",
    )
    spec_file: str | None = option(
        None,
        "Distillation spec (distill.yaml).",
        label="Distillation spec",
        flag="--spec",
        metavar="FILE",
        place="file",
    )
    steps: int | None = option(
        None,
        "Training steps in all, shared among the stages in the recipe's proportions.",
        label="Training steps",
        unit="steps",
        ge=0,
        usual="the recipe's",
    )
    minutes: float | None = option(
        None,
        "Time limit: fewer steps are run if they would take longer.",
        label="Time limit",
        unit="minutes",
        gt=0,
    )
    data: str | None = option(
        None,
        "Training data: a file of prompts, an image folder with captions, tar shards, parquet, "
        "`hub:OWNER/NAME` of a data set of the Hub, or `scenes`.",
        label="Training data",
        metavar="DATA",
        place="file-or-folder",
        usual="scenes for students of demo, else a general list of prompts",
    )
    scenes: int | None = option(
        None,
        "Number of bundled scenes to train on; 0: no limit.",
        label="Training scenes",
        ge=0,
        usual="2048",
        advanced=True,
    )
    square: bool = option(
        False,
        "Crop all images to squares instead of sorting them into aspect buckets.",
        label="Square crops",
        advanced=True,
    )
    size: Size | None = fields.size()
    negative: str | None = fields.negative()
    sampling_steps: int | None = option(
        None,
        "Sampling steps of latents that the teacher makes from prompts.",
        label="Sampling steps",
        unit="steps",
        ge=1,
        usual="the teacher's default",
        advanced=True,
    )
    sensitivity: str | None = fields.sensitivity()
    resume: bool = fields.resume()
    estimate: bool = option(
        False, "Only print how long and how much memory it would take.", label="Estimate only"
    )
    devices: str | None = option(
        None,
        "With --estimate: other GPUs than this machine's, such as 8x80GB, by a dry run without weights. "
        "STUDENT may then be a plan.",
        label="GPUs to estimate for",
        flag="--for",
        metavar="NxGB",
        advanced=True,
    )
    processes: int = fields.processes()
    shard: bool = option(
        False,
        "Split teacher and student between the processes (FSDP2).",
        label="Shard with FSDP2",
        advanced=True,
    )
    placement: PlacementName = fields.placement()
    teacher_weights: WeightsName = fields.teacher_weights("the frozen teachers")
    checkpointing: bool = option(
        False,
        "Gradient checkpointing: less memory, a third more compute.",
        label="Gradient checkpointing",
        advanced=True,
    )
    keep_checkpoints: int = option(
        2,
        "How many of the newest checkpoints to keep.",
        label="Checkpoints to keep",
        ge=1,
        advanced=True,
    )
    checkpoint_every: float = option(
        60.0,
        "Time between checkpoints.",
        label="Checkpoint interval",
        unit="seconds",
        gt=0,
        advanced=True,
    )
    watch: int | None = option(
        None,
        "Sample a few fixed prompts every N steps; 0: never.",
        label="Sample images every",
        unit="steps",
        ge=0,
        usual="four times in a run",
        advanced=True,
    )
    prompts: str | None = option(
        None,
        "Prompts to sample during training: a file with one per line.",
        label="Prompts to sample",
        metavar="FILE",
        place="file",
        usual="a few of the data's own",
        advanced=True,
    )
    trackers: list[str] = option(
        [],
        "Experiment trackers that also get the metrics, such as trackio or tensorboard.",
        label="Experiment trackers",
        flag="--tracker",
        advanced=True,
    )
