"""`workbench compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..plugins import registry
from . import fields
from .base import VerbSpec, option
from .values import Names, Precision


class CompareSpec(VerbSpec):
    """Sample the same prompts and seeds with several models, score them, and write a page.

    The first model is the reference.
    """

    verb: ClassVar[str] = "compare"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    models: list[str] = option(
        about="The teacher and at least one student; NAME=MODEL gives a model a name.",
        positional=True,
        metavar="TEACHER STUDENT...",
        place="model",
    )
    names: Names | None = option(
        None,
        "Names of the models on the page, in order.",
        usual="their folders' names",
        advanced=True,
    )
    out: str | None = fields.out("the comparison")
    suite: str | None = option(
        None,
        "Prompts: scenes, general, or FILE.jsonl with a prompt a line.",
        place="file-or-name",
        usual="scenes for demo, else general",
    )
    prompts_per_category: int | None = fields.prompts_per_category("40")
    seeds: int = fields.seeds()
    sampling_steps: int | None = fields.sampling_steps()
    guidance: float | None = fields.guidance()
    size: int | None = fields.size()
    scorers: Names | None = option(
        None,
        "Scorers, with commas.",
        choices=registry("scorer").names,
        usual="all that fit the suite",
    )
    dtype: Precision | None = fields.dtype("bf16 for demo, else as stored")
