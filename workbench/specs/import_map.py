"""`workbench import-map`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec, option

HPSV2_OF_SD35_LARGE_TURBO = 30.29  # the whole model's score in HierarchicalPrune's tables


class ImportMapSpec(VerbSpec):
    """Convert HierarchicalPrune's published table into a sensitivity map.

    The table has the HPSv2 score of SD3.5-Large-Turbo after removing each block or part. A higher
    sensitivity means that the block matters more.
    """

    verb: ClassVar[str] = "import-map"
    file: str = option(
        about="The JSON file that the authors published.",
        label="Published table",
        positional=True,
        metavar="FILE",
        place="file",
    )
    out: str | None = fields.out("the map")
    baseline: float = option(
        HPSV2_OF_SD35_LARGE_TURBO,
        "HPSv2 score of the unpruned model; sensitivity = baseline - score.",
        label="Baseline score",
    )
