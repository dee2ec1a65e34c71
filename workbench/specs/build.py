"""`workbench build`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec, option
from .values import Precision


class BuildSpec(VerbSpec):
    """Build the student that a plan describes and save it as a diffusers folder."""

    verb: ClassVar[str] = "build"
    plan: str = option(
        about="The plan file (plan.yaml).",
        label="Plan file",
        positional=True,
        metavar="PLAN",
        place="file",
    )
    out: str | None = fields.out("the student")
    teacher: str | None = option(
        None,
        "Teacher to use instead of the one that the plan names, for instance after it has moved.",
        label="Teacher",
        place="model",
        usual="the plan's",
    )
    dtype: Precision | None = fields.dtype("as stored")
    fat: bool = option(
        False,
        "Write a plain diffusers checkpoint, without custom code: tied weights are duplicated, "
        "factors multiplied out and dropped parts zeros, so the files are larger.",
        label="Write stock-class weights (fat)",
    )
    conditioning: str | None = fields.conditioning()
