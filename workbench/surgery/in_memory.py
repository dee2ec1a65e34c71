"""A loaded teacher re-wired as a student: milliseconds, shared weights, restored exactly."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import nn

from .. import plans, students
from ..families import FAMILIES
from ..models import Pipeline, blocks_of, config_of, describe_module, transformer_of
from ..models.block_cache import block_for
from ..records import Plan, Progress
from .student_config import config_changes, needs_code


@contextmanager
def applied(model: Pipeline | nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """While inside, the loaded teacher is the plan's student; afterwards it is exactly what it was,
    also after an exception.

    Kept blocks are the teacher's own objects, single-stream blocks and blocks without some parts
    work on the teacher's parameters, and merged blocks are computed once and cached (`prepared`
    does that beforehand, telling how far it is). Yields the transformer. Raises BadInput for an
    unsound plan.
    """
    transformer = transformer_of(model)
    plan = plans.check(plan, describe_module(transformer))
    stacks = blocks_of(transformer)
    replacements = {
        path: nn.ModuleList([block_for(transformer, path, span) for span in spans])
        for path, spans in plan.stacks.items()
    }
    with ExitStack() as undo:
        undo.callback(
            transformer.__dict__.__setitem__,
            "_internal_dict",
            transformer.__dict__["_internal_dict"],
        )
        for path, stack in stacks.items():
            undo.callback(transformer.set_submodule, path, stack)
        for path, student in replacements.items():
            student.training = stacks[path].training
            transformer.set_submodule(path, student)
        changes = config_changes(config_of(transformer), plan)
        cast(Any, transformer).register_to_config(**changes)
        undo.callback(setattr, transformer, "__class__", transformer.__class__)
        if needs_code(changes):
            transformer.__class__ = students.student_class(plan.family)
        elif isinstance(transformer, students.student_class(plan.family)):
            transformer.__class__ = students.stock_class(FAMILIES[plan.family])
        yield transformer


def prepared(model: Pipeline | nn.Module, plan: Plan) -> Iterator[Progress]:
    """Make the blocks that `applied` will need, one a step: averaging those of a large teacher
    takes seconds each.
    """
    transformer = transformer_of(model)
    plan = plans.check(plan, describe_module(transformer))
    spans = [
        (path, number, span)
        for path, spans in plan.stacks.items()
        for number, span in enumerate(spans)
    ]
    for step, (path, number, span) in enumerate(spans):
        yield Progress(step=step, total=len(spans), message=f"{path}.{number}")
        block_for(transformer, path, span)
    yield Progress(step=len(spans), total=len(spans), result=plan.digest)


def student_transformer(transformer: nn.Module, plan: Plan) -> nn.Module:
    """A new transformer with the plan's blocks and weights of its own, of the stock class where
    that can hold them; the teacher is left alone."""
    with applied(transformer, plan) as student:
        return copy.deepcopy(student)
