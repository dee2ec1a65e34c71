"""`workbench build`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec, option
from .values import Precision


class BuildSpec(VerbSpec):
    """Write the student of a plan as a diffusers folder, tensor by tensor."""

    verb: ClassVar[str] = "build"
    plan: str = option(about="The plan file.", positional=True, metavar="PLAN", place="file")
    out: str | None = fields.out("the student")
    teacher: str | None = option(
        None, "Teacher, where it has moved.", place="model", usual="the plan's"
    )
    dtype: Precision | None = fields.dtype("as stored")
    fat: bool = option(
        False,
        "Write a plain diffusers checkpoint: tied weights written out, dropped parts zeroed.",
    )
