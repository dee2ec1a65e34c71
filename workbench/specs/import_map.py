"""`workbench import-map`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec, option

HPSV2_OF_SD35_LARGE_TURBO = 30.29  # the whole model's score in HierarchicalPrune's tables


class ImportMapSpec(VerbSpec):
    """Read HierarchicalPrune's published table (HPSv2 after removal) as a sensitivity map.

    The map is of SD3.5-Large-Turbo; higher = keep.
    """

    verb: ClassVar[str] = "import-map"
    file: str = option(about="The published JSON.", positional=True, metavar="FILE", place="file")
    out: str | None = fields.out("the map")
    baseline: float = option(
        HPSV2_OF_SD35_LARGE_TURBO, "The whole model's score; sensitivity = baseline - score."
    )
