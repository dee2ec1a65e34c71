"""`workbench profile`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator

from ..plugins import registry
from ..records.picture_size import Size
from . import fields
from .base import VerbSpec, option
from .placements import PlacementName
from .teacher_weights import WeightsName
from .values import Names, Precision, split_names


class ProfileSpec(VerbSpec):
    """Measure how much each block matters at each timestep.

    Writes a sensitivity map; higher = keep.
    """

    verb: ClassVar[str] = "profile"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)
    gone: ClassVar[tuple[str, ...]] = ("shard",)

    teacher: str = fields.teacher()
    out: str | None = fields.out("the map")
    metric: str = option(
        "prediction",
        "The score: what changes when a block is edited, or another measure of its importance.",
        label="Metric",
        choices=registry("metric").names,
    )
    edits: Names | None = option(
        None,
        "Edits to score, separated by commas: drop, merge[:init[:gain]], single, drop:PART, "
        "modulation:rank=K, int4.",
        label="Edits to score",
        usual="drop,merge; drop for metric image; modulation:rank=8 for metric modulation",
    )
    scorer: str | None = option(
        None,
        "Scorer of the finished pictures, for metric image.",
        label="Scorer (metric image)",
        choices=registry("scorer").names,
        usual="scenes for demo, else ssim",
        advanced=True,
    )
    timesteps: int = option(
        8, "Number of sampling steps to measure at.", label="Measured timesteps", ge=1
    )
    prompts: str | None = fields.prompts("calibration")
    seeds: int = fields.seeds()
    inputs: str | None = option(
        None,
        "Recorded transformer inputs to use instead of prompts (docs/sensitivity.md).",
        label="Recorded inputs",
        metavar="FILE",
        place="file",
        advanced=True,
    )
    conditioning: str | None = fields.conditioning()
    sampling_steps: int | None = fields.sampling_steps()
    guidance: float | None = fields.guidance()
    size: Size | None = fields.size()
    negative: str | None = fields.negative()
    batch: int | None = option(
        None, "Samples per forward pass.", label="Batch size", ge=1, usual="8", advanced=True
    )
    timestep_weight: str | None = option(
        None,
        "Timestep weighting of the ranking that --until-stable and --race check.",
        label="Timestep weighting",
        usual="normalised",
        advanced=True,
    )
    until_stable: bool = option(
        False,
        "Add prompts, up to 200, until the ranking of the blocks is stable (with --race: until all "
        "blocks are settled).",
        label="Add prompts until stable",
    )
    race: int | None = option(
        None,
        "Find the K least sensitive blocks only. Blocks that are clearly among them, or clearly not, "
        "are not measured again (95 % confidence).",
        label="Find the least sensitive",
        unit="blocks",
        metavar="K",
        ge=1,
        usual="every block is measured to the end",
        advanced=True,
    )
    longest: int | None = option(
        None,
        "Longest span to try, for metric recovery.",
        label="Longest span (metric recovery)",
        unit="blocks",
        ge=2,
        usual="4",
        advanced=True,
    )
    train_steps: int | None = option(
        None,
        "Training steps of each span, for metric recovery.",
        label="Training steps per span (metric recovery)",
        unit="steps",
        ge=1,
        usual="60",
        advanced=True,
    )
    processes: int = fields.processes()
    dtype: Precision | None = fields.dtype("fp32 on a CPU, else as stored")
    placement: PlacementName = fields.placement()
    teacher_weights: WeightsName = fields.teacher_weights("the teacher")
    resume: bool = fields.resume()

    @model_validator(mode="before")
    @classmethod
    def _metric_of_ranks(cls, data: Any) -> Any:
        """Ranks of modulation alone, and no metric: the metric that needs no sampling."""
        if not isinstance(data, dict) or data.get("metric") or not data.get("edits"):
            return data
        edits = split_names(data["edits"])
        ranks = [edit for edit in edits if str(edit).startswith("modulation:")]
        return {**data, "metric": "modulation"} if len(ranks) == len(edits) else data

    def to_data(self) -> dict[str, Any]:
        """Plain data of the fields that differ from their defaults. The metric beside edits too:
        without it, ranks of modulation would get another one.
        """
        data = super().to_data()
        return data | {"metric": self.metric} if self.edits else data
