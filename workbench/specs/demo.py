"""`workbench demo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from . import fields
from .base import VerbSpec, option


class DemoSpec(VerbSpec):
    """Run the whole workflow on the bundled teacher: plan, build, distill and compare a student."""

    verb: ClassVar[str] = "demo"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    out: str | None = fields.out("the comparison")
    minutes: float = option(6.0, "Training time.", label="Training time", unit="minutes", ge=0)
    prompts_per_category: int | None = fields.prompts_per_category("40")
    sampling_steps: int | None = fields.sampling_steps()
    scenes: int | None = option(
        None,
        "Number of bundled scenes to train on; 0: no limit.",
        label="Training scenes",
        ge=0,
        usual="2048",
        advanced=True,
    )
