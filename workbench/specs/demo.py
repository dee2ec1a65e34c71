"""`workbench demo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from . import fields
from .base import VerbSpec, option


class DemoSpec(VerbSpec):
    """Plan, build, distill and compare a student of the bundled teacher, in minutes."""

    verb: ClassVar[str] = "demo"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    out: str | None = fields.out("the comparison")
    minutes: float = option(6.0, "Training time.", unit="minutes", ge=0)
    prompts_per_category: int | None = fields.prompts_per_category("40")
    sampling_steps: int | None = fields.sampling_steps()
    scenes: int | None = option(
        None,
        "How many of the bundled scenes to train on; 0: no limit.",
        ge=0,
        usual="2048",
        advanced=True,
    )
