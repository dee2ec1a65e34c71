"""`workbench info`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec


class InfoSpec(VerbSpec):
    """Describe a model: family, stacks, parameters per block and part, memory by precision.

    TEACHER may also be a config.json without weights.
    """

    verb: ClassVar[str] = "info"
    teacher: str = fields.teacher()
