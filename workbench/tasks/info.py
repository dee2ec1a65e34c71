"""`workbench info`: what is known of a teacher without its weights."""

from __future__ import annotations

from collections.abc import Iterator

from .. import plans
from ..records import Progress
from ..specs import InfoSpec
from .context import Context
from .resolve import resolve


def info(spec: InfoSpec, context: Context) -> Iterator[Progress]:
    """Family, stacks, parameters, memory."""
    model = resolve(spec.teacher, context.store, weights=False)
    teacher = model.description
    result = {
        "teacher": teacher.name,
        **plans.teacher_info(teacher),
        "dtype": teacher.dtype,
        "fingerprint": teacher.fingerprint,
    }
    found = model.card.quantization if model.card else None
    if found is not None:
        result["quantization"] = {"ratio": found.ratio, **found.model_dump(mode="json")}
    yield Progress(step=1, total=1, result=result)
