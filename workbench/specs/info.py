"""`workbench info`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec


class InfoSpec(VerbSpec):
    """Family, stacks, parameters per block and part, memory by precision.

    TEACHER may be a config.json alone.
    """

    verb: ClassVar[str] = "info"
    teacher: str = fields.teacher()
