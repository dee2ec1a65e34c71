"""A loaded teacher re-wired as a student: milliseconds, shared weights, restored exactly."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .. import plans
from ..edits import student_block_state
from ..families import StackRow
from ..models import (
    Pipeline,
    blocks_of,
    config_of,
    describe_module,
    family_of,
    transformer_of,
)
from ..records import Plan, Span
from .settings import config_changes

# Blocks with weights of their own (merged, gain, drop), kept per model and span while the model lives, so that a second
# preview costs nothing. At most as many as the teacher has blocks.
_MADE: WeakKeyDictionary[nn.Module, OrderedDict[str, nn.Module]] = WeakKeyDictionary()


@contextmanager
def applied(model: Pipeline | nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """While inside, the loaded teacher is the plan's student; afterwards it is exactly what it was, also after an exception.

    Kept blocks are the teacher's own objects; merged blocks are computed once and cached. Yields the transformer.
    Parts dropped by the plan are emptied, not removed. Raises BadInput for an unsound plan.
    """
    transformer = transformer_of(model)
    plans.check(plan, describe_module(transformer))
    family, stacks = family_of(transformer), blocks_of(transformer)
    students = {path: nn.ModuleList([_block(transformer, stacks[path], path, span, family.stack(path)) for span in spans])
                for path, spans in plan.stacks.items()}
    with ExitStack() as undo:
        undo.callback(transformer.__dict__.__setitem__, "_internal_dict", transformer.__dict__["_internal_dict"])
        for path, stack in stacks.items():
            undo.callback(transformer.set_submodule, path, stack)
        for path, student in students.items():
            student.training = stacks[path].training
            transformer.set_submodule(path, student)
        cast(Any, transformer).register_to_config(**config_changes(config_of(transformer), plan))
        yield transformer


def student_transformer(transformer: nn.Module, plan: Plan) -> nn.Module:
    """A new transformer of the stock class with the plan's depth and weights of its own; the teacher is left alone."""
    with applied(transformer, plan) as student:
        return copy.deepcopy(student)


def _block(transformer: nn.Module, stack: nn.ModuleList, path: str, span: Span, row: StackRow) -> nn.Module:
    """The block a span makes: the teacher's own where its weights are unchanged, else a cached copy."""
    source = stack[span.source[0]]
    if len(span.source) == 1 and span.gain == 1 and not span.drop and span.stream in (None, row.kind):
        return source
    made = _MADE.setdefault(transformer, OrderedDict())
    weight = next(source.parameters())
    versions = sum(p._version for block in span.source for p in stack[block].parameters())  # training changes them
    key = f"{path} {span.model_dump_json()} {weight.dtype} {weight.device} {versions}"
    if key not in made:
        with torch.no_grad():
            state = student_block_state(lambda block: stack[block].state_dict(), span, row)
        made[key] = copy.deepcopy(source)
        made[key].load_state_dict(state, assign=True)
    made.move_to_end(key)
    while len(made) > max(len(stack), 1):
        made.popitem(last=False)
    return made[key]
