"""`workbench plan` and `workbench plan-info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..plugins import registry
from ..records import Init
from ..records.picture_size import Size
from . import fields
from .base import VerbSpec, option
from .values import (
    GAINS,
    PLAN_EDITS,
    RANKS,
    TIMESTEP_WEIGHTS,
    Blocks,
    Gain,
    Keep,
    Names,
    Precision,
    Rank,
)


class PlanSpec(VerbSpec):
    """Propose a plan: which teacher blocks each student block is made of.

    Writes a plan.yaml that you can edit by hand.
    """

    verb: ClassVar[str] = "plan"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    teacher: str = fields.teacher()
    out: str | None = fields.out("the plan")
    rule: str | None = option(
        None,
        "Rule that proposes the plan.",
        label="Rule",
        choices=registry("rule").names,
        usual="the recipe's, else uniform",
    )
    recipe: str | None = option(
        None,
        "Recipe to take the rule and the size from: a name or a file.",
        label="Recipe",
        choices=registry("recipe").names,
        place="file-or-name",
    )
    sensitivity: str | None = fields.sensitivity()
    keep: Keep | None = option(
        None,
        "Number of student blocks: N, or STACK=N,STACK=N for a model with several stacks.",
        label="Student blocks",
        metavar="N",
    )
    budget: str | float | None = option(
        None,
        "Size limit instead of --keep: params=0.5 (share of the parameters), bytes=6GB@int4, or "
        "latency=0.5 (share of the predicted time per step).",
        label="Budget",
        metavar="LIMIT",
    )
    init: Init | None = option(
        None,
        "Which teacher block of a span the student block starts as; mean averages their weights.",
        label="Initialisation",
        usual="the rule's",
    )
    gain: Gain | None = option(
        None,
        "Factor on the residual branches of a merged block: a number, or length, the number of "
        "blocks in its span.",
        label="Gain",
        choices=lambda: list(GAINS),
        usual="the rule's",
    )
    single_from: float | None = option(
        None,
        "Make the student blocks from this number on single-stream; a value below 1 is a share of "
        "the depth.",
        label="Single-stream from block",
    )
    slim_from: float | None = option(
        None,
        "Make the student blocks from this number on text-slim: they keep only the text keys and "
        "values. A value below 1 is a share of the depth.",
        label="Text-slim from block",
    )
    protect: Blocks | None = option(
        None,
        "Teacher blocks to leave unchanged, for instance 0,1,23.",
        label="Protected blocks",
        metavar="BLOCKS",
    )
    modulation_rank: Rank | None = option(
        None,
        "Replace the AdaLN linears of every block by two factors of this rank, so that a budget "
        "buys more blocks. auto: the smallest rank within --modulation-error.",
        label="Modulation rank",
        choices=lambda: list(RANKS),
        metavar="K",
        usual="full modulation",
    )
    modulation_error: float | None = option(
        None,
        "With --modulation-rank auto: the largest relative squared error of a block's modulation.",
        label="Modulation error",
        gt=0,
        usual="5e-4",
        advanced=True,
    )
    timestep_weight: str | None = option(
        None,
        "How scores are averaged over timesteps: a name, or weights such as 1000=1,0=0.",
        label="Timestep weighting",
        choices=lambda: list(TIMESTEP_WEIGHTS),
        usual="the rule's",
    )
    edits: Names | None = option(
        None,
        "greedy: edits that it may use, separated by commas.",
        label="Edits",
        choices=lambda: list(PLAN_EDITS),
        usual="all but modulation",
        advanced=True,
    )
    whole_text: int | None = option(
        None,
        "greedy: edits leave the text stream of this many first student blocks whole.",
        label="Whole text streams",
        unit="blocks",
        ge=0,
        usual="0",
        advanced=True,
    )
    longest: int | None = option(
        None,
        "greedy: longest span, unless the requested size needs longer ones.",
        label="Longest span",
        unit="blocks",
        ge=2,
        advanced=True,
    )
    margin: float | None = option(
        None,
        "greedy: factor by which another init must beat init=first.",
        label="Init margin",
        ge=1.0,
        usual="1",
        advanced=True,
    )
    shortlist: int | None = option(
        None,
        "greedy: how many of the best edits to measure again in each round; 0: all.",
        label="Shortlist",
        ge=0,
        usual="16",
        advanced=True,
    )
    minutes: float | None = option(
        None, "search: time limit.", label="Time limit", unit="minutes", gt=0, advanced=True
    )
    tries: int | None = option(
        None,
        "search: number of plans to measure.",
        label="Plans to measure",
        ge=1,
        usual="200 without a time limit",
        advanced=True,
    )
    start: str | None = option(
        None,
        "search: plan to start from: a plan file, or a rule that proposes one.",
        label="Starting plan",
        place="file-or-name",
        usual="uniform",
        advanced=True,
    )
    parts: bool | None = option(
        None,
        "hierarchical: also drop single parts of blocks.",
        label="Drop parts",
        usual="yes",
        advanced=True,
    )
    prompts: str | None = fields.prompts("calibration")
    inputs: str | None = option(
        None,
        "Recorded transformer inputs to use instead of prompts (docs/sensitivity.md).",
        label="Recorded inputs",
        metavar="FILE",
        place="file",
        advanced=True,
    )
    conditioning: str | None = fields.conditioning()
    seeds: int = fields.seeds()
    timesteps: int | None = option(
        None,
        "Number of sampling steps to measure at (rules that measure).",
        label="Measured timesteps",
        ge=1,
        usual="4",
        advanced=True,
    )
    sampling_steps: int | None = fields.sampling_steps()
    guidance: float | None = fields.guidance()
    size: Size | None = fields.size()
    batch: int | None = option(
        None, "Samples per forward pass.", label="Batch size", ge=1, usual="8", advanced=True
    )
    dtype: Precision | None = fields.dtype("fp32 on a CPU, else as stored")
    free_cuts: bool = option(
        False, "Also drop parts that no output depends on.", label="Drop parts without effect"
    )


class PlanInfoSpec(VerbSpec):
    """Show a plan's cost: parameters, memory by precision, predicted speed and error.

    --teacher may also be a config.json without weights.
    """

    verb: ClassVar[str] = "plan-info"
    plan: str = option(
        about="The plan file (plan.yaml).",
        label="Plan file",
        positional=True,
        metavar="PLAN",
        place="file",
    )
    teacher: str | None = option(
        None,
        "Teacher to use instead of the one that the plan names, for instance after it has moved.",
        label="Teacher",
        place="model",
        usual="the plan's",
    )
    sensitivity: str | None = option(
        None,
        "Sensitivity map: a file, or its id in the workspace.",
        label="Sensitivity map",
        metavar="MAP",
        place="file-or-name",
        usual="the map that the plan was made from",
    )
    against: str | None = option(
        None,
        "Another plan: also list the differences.",
        label="Other plan",
        metavar="PLAN",
        place="file",
    )
