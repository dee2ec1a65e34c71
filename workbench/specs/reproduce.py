"""`workbench reproduce`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from . import fields
from .base import VerbSpec, option
from .values import Names


class ReproduceSpec(VerbSpec):
    """The papers' tables on the bundled teacher, all rules at equal size and training.

    A run with the same output continues where the last one stopped.
    """

    verb: ClassVar[str] = "reproduce"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps", "minutes": "minutes_per_row"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    shares_output: ClassVar[bool] = True

    table: str = option(
        "all", "amber, hierarchicalprune, ppcl or all.", positional=True, metavar="TABLE"
    )
    out: str | None = fields.out("the report")
    quick: bool = option(False, "Ten minutes in all: shows how it works, proves nothing.")
    minutes_per_row: float | None = option(
        None,
        "Training time of each row.",
        unit="minutes",
        ge=0,
        usual="10; with --quick what is left of ten minutes",
    )
    only: Names | None = option(None, "Rows to make, with commas.", usual="all")
    prompts_per_category: int | None = fields.prompts_per_category("40; with --quick 2")
    sampling_steps: int | None = fields.sampling_steps()
    scenes: int | None = option(
        None,
        "How many of the bundled scenes to train on.",
        ge=0,
        usual="8192; with --quick 1024",
        advanced=True,
    )
