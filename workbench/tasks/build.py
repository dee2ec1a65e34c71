"""`workbench build`: check the plan and the teacher, then write the student."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import models, plans, surgery
from ..records import BadInput, Plan, Progress
from .context import Context
from .info import describe
from .resolve import locate


def build(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: plan (a file), teacher (else the plan's), dtype, fat, out."""
    loaded = Plan.load(spec["plan"])
    path, name = locate(spec.get("teacher") or loaded.teacher, context.store)
    teacher = describe(str(spec.get("teacher") or loaded.teacher), context.store)
    plans.check(loaded, teacher)
    if path.is_file():
        raise BadInput(
            f"{path} is a config without weights", "a teacher folder", "name one with --teacher"
        )
    dtype = models.parse_dtype(spec["dtype"]) if spec.get("dtype") else None
    out = Path(
        spec.get("out")
        or context.store.out("student", f"{Path(name).name}-{sum(loaded.depth().values())}")
    ).absolute()
    for progress in surgery.build(
        path, teacher, loaded, out, dtype=dtype, fat=bool(spec.get("fat"))
    ):
        if progress.result is not None:
            context.store.add("student", out)
        yield progress
        if progress.result is None and context.stop():
            return
