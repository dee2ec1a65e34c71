"""The kind import-map: a published table as a map, with a record of its teacher, on a machine that
has not the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import models, sensitivity
from ..records import Progress
from .context import Context
from .info import keep
from .profile import facts

SD35_LARGE_TURBO = "stabilityai/stable-diffusion-3.5-large-turbo"
BASELINE = 30.29  # HPSv2 of the whole model, by HierarchicalPrune's tables
# the transformer's dimensions, as published
CONFIG = Path(__file__).parent / "published" / "sd35-large-turbo.json"


def import_map(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: file, baseline, out."""
    teacher = models.describe(CONFIG, SD35_LARGE_TURBO)
    baseline = spec.get("baseline")
    record = sensitivity.import_table(
        spec["file"], teacher, BASELINE if baseline is None else float(baseline)
    )
    keep(teacher, context.store)
    out = (
        Path(spec["out"])
        if spec.get("out")
        else context.store.out("map", f"{Path(teacher.name).name}-{record.metric}", ".json")
    )
    record.save(out)
    context.store.add("map", out)
    flagged = sum(row.flag is not None for row in record.rows)
    yield Progress(
        step=1,
        total=1,
        result={"map": str(out), **facts(record), "teacher": teacher.name, "flagged": flagged},
    )
