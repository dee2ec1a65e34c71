"""`workbench build`: check the plan and the teacher, then write the student."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import models, plans, surgery
from ..records import Plan, Progress
from ..specs import BuildSpec
from .context import Context
from .known_maps import recorded_vectors
from .resolve import resolve


def build(spec: BuildSpec, context: Context) -> Iterator[Progress]:
    """Write the student of a plan, then register it in the workspace."""
    plan = Plan.load(spec.plan)
    teacher = resolve(spec.teacher or plan.teacher, context.store)
    plan = plans.check(plan, teacher.description)
    dtype = None if spec.dtype is None else models.parse_dtype(spec.dtype)
    if spec.out is None:
        depth = sum(plan.depth().values())
        out = context.store.out("student", f"{teacher.title}-{depth}")
    else:
        out = Path(spec.out).absolute()
    writing = surgery.build(
        teacher.folder,
        teacher.description,
        plan,
        out,
        dtype=dtype,
        fat=spec.fat,
        conditioning=spec.conditioning or recorded_vectors(teacher.description, context.store),
    )
    for progress in writing:
        if progress.result is not None:
            context.store.add("student", out)
        yield progress
        if progress.result is None and context.stop():
            return
