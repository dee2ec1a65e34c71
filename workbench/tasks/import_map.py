"""`workbench import-map`: a published table as a map, with a record of its teacher, on a machine
that does not have the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import models
from ..records import Progress
from ..sensitivity.importing import import_table
from ..specs import ImportMapSpec
from .context import Context
from .profile import facts
from .resolve import keep_record

SD35_LARGE_TURBO = "stabilityai/stable-diffusion-3.5-large-turbo"
# the transformer's dimensions, as published
CONFIG = Path(__file__).parent / "published" / "sd35-large-turbo.json"


def import_map(spec: ImportMapSpec, context: Context) -> Iterator[Progress]:
    """Write the table as a sensitivity map: score = baseline - value, higher = keep."""
    teacher = models.describe(CONFIG, SD35_LARGE_TURBO)
    record = import_table(spec.file, teacher, spec.baseline)
    keep_record(teacher, context.store)
    if spec.out is None:
        out = context.store.out("map", f"{Path(teacher.name).name}-{record.metric}", ".json")
    else:
        out = Path(spec.out)
    record.save(out)
    context.store.add("map", out)
    result = {
        "map": str(out),
        **facts(record),
        "teacher": teacher.name,
        "flagged": sum(row.flag is not None for row in record.rows),
    }
    yield Progress(step=1, total=1, result=result)
