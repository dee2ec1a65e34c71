"""`workbench reproduce`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from . import fields
from .base import VerbSpec, option
from .values import RowNames


class ReproduceSpec(VerbSpec):
    """Repeat the papers' comparisons on the bundled teacher, at equal size and training time.

    A run with the same output path continues where the last one stopped.
    """

    verb: ClassVar[str] = "reproduce"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps", "minutes": "minutes_per_row"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    shares_output: ClassVar[bool] = True

    table: str = option(
        "all",
        "Which paper's comparison: amber, hierarchicalprune, ppcl, branches, modulation or all.",
        label="Table",
        positional=True,
        metavar="TABLE",
    )
    out: str | None = fields.out("the report")
    quick: bool = option(
        False,
        "A ten-minute run that shows how it works; its scores are not evidence.",
        label="Quick run",
    )
    minutes_per_row: float | None = option(
        None,
        "Training time per table row.",
        label="Training time per row",
        unit="minutes",
        ge=0,
        usual="10; with --quick what remains of the ten minutes",
    )
    only: RowNames | None = option(
        None,
        "Run only these rows: names of rows or groups or GROUP/ROW, separated by semicolons.",
        label="Rows",
        metavar="ROWS",
        usual="all",
    )
    no_finals: bool = option(
        False,
        "Leave out the finals, in which two rows of some groups train six times as long.",
        label="Without finals",
    )
    prompts_per_category: int | None = fields.prompts_per_category("40; with --quick 2")
    sampling_steps: int | None = fields.sampling_steps()
    scenes: int | None = option(
        None,
        "Number of bundled scenes to train on.",
        label="Training scenes",
        ge=0,
        usual="8192; with --quick 1024",
        advanced=True,
    )
