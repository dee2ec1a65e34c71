"""`workbench plan` and `workbench plan-info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..plugins import registry
from ..records import Init
from . import fields
from .base import VerbSpec, option
from .values import (
    GAINS,
    PLAN_EDITS,
    TIMESTEP_WEIGHTS,
    Blocks,
    Gain,
    Keep,
    Names,
    Precision,
)


class PlanSpec(VerbSpec):
    """Decide what each student block is made of.

    Writes a plan that you can edit.
    """

    verb: ClassVar[str] = "plan"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    teacher: str = fields.teacher()
    out: str | None = fields.out("the plan")
    rule: str | None = option(
        None,
        "Rule that proposes the plan.",
        choices=registry("rule").names,
        usual="the recipe's, else uniform",
    )
    recipe: str | None = option(
        None,
        "Recipe whose rule and size to use.",
        choices=registry("recipe").names,
        place="file-or-name",
    )
    sensitivity: str | None = fields.sensitivity()
    keep: Keep | None = option(
        None, "Student blocks: N, or STACK=N,.. where there are several stacks.", metavar="N"
    )
    budget: str | float | None = option(
        None,
        "Limit: params=0.5 (share of the parameters), bytes=6GB@int4, or latency=0.5 (share of the "
        "predicted time).",
        metavar="LIMIT",
    )
    init: Init | None = option(
        None,
        "Initialisation of a student block from its span of teacher blocks.",
        usual="the rule's",
    )
    gain: Gain | None = option(
        None,
        "Factor on a merged block's residual: a number, or length (of its span).",
        choices=lambda: list(GAINS),
        usual="the rule's",
    )
    single_from: float | None = option(
        None,
        "Student blocks from this number on are single-stream; below 1: from this share of the "
        "depth on.",
    )
    slim_from: float | None = option(
        None,
        "Student blocks from this number on are text-slim (text keys and values stay); below "
        "1: from this share of the depth on.",
    )
    protect: Blocks | None = option(None, "Blocks that are not merged, dropped or changed: 0,1,23.")
    timestep_weight: str | None = option(
        None,
        "How scores are averaged over timesteps, by name or by weights like 1000=1,0=0.",
        choices=lambda: list(TIMESTEP_WEIGHTS),
        usual="the rule's",
    )
    edits: Names | None = option(
        None,
        "greedy: edits it may make, with commas.",
        choices=lambda: list(PLAN_EDITS),
        usual="all",
        advanced=True,
    )
    longest: int | None = option(
        None,
        "greedy: longest span, unless the size asks for more.",
        unit="blocks",
        ge=2,
        advanced=True,
    )
    margin: float | None = option(
        None,
        "greedy: factor by which another init must beat init=first.",
        ge=1.0,
        usual="1",
        advanced=True,
    )
    shortlist: int | None = option(
        None,
        "greedy: edits to measure again in each round; 0: all.",
        ge=0,
        usual="16",
        advanced=True,
    )
    minutes: float | None = option(None, "search: time limit.", unit="minutes", gt=0, advanced=True)
    tries: int | None = option(
        None,
        "search: number of plans to measure, instead of a time limit.",
        ge=1,
        usual="200",
        advanced=True,
    )
    start: str | None = option(
        None,
        "search: plan file to improve, or the rule that makes it.",
        place="file-or-name",
        usual="uniform",
        advanced=True,
    )
    parts: bool | None = option(
        None, "hierarchical: drop parts of blocks too.", usual="yes", advanced=True
    )
    prompts: str | None = fields.prompts("calibration")
    inputs: str | None = option(
        None,
        "Recorded transformer inputs to measure on instead of prompts.",
        metavar="FILE",
        place="file",
        advanced=True,
    )
    seeds: int = fields.seeds()
    timesteps: int | None = option(
        None,
        "Measuring rules: at how many of the sampling steps.",
        ge=1,
        usual="4",
        advanced=True,
    )
    sampling_steps: int | None = fields.sampling_steps()
    guidance: float | None = fields.guidance()
    size: int | None = fields.size()
    batch: int | None = option(None, "Samples per forward pass.", ge=1, usual="8", advanced=True)
    dtype: Precision | None = fields.dtype("fp32 on a CPU, else as stored")
    free_cuts: bool = option(False, "Also drop parts that no output depends on.")


class PlanInfoSpec(VerbSpec):
    """What a plan costs: parameters, memory by precision, predicted speed and error.

    --teacher may be a config.json alone.
    """

    verb: ClassVar[str] = "plan-info"
    plan: str = option(about="The plan file.", positional=True, metavar="PLAN", place="file")
    teacher: str | None = option(
        None, "Teacher, where it has moved.", place="model", usual="the plan's"
    )
    sensitivity: str | None = option(
        None,
        "Sensitivity map: a file, or its id in the workspace.",
        metavar="MAP",
        place="file-or-name",
        usual="the map that the plan was made from",
    )
    against: str | None = option(
        None, "Another plan: also list what differs from it.", metavar="PLAN", place="file"
    )
