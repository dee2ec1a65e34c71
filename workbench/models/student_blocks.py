"""Stand-ins: the blocks a student would have, made beside a loaded teacher and kept while it lives."""

from __future__ import annotations

import copy
from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .. import students as hybrid
from ..records import Span
from ..students.weights import student_block_state
from . import blocks_of, family_of

# Blocks that are not the teacher's own, kept per model and span while the model lives, so that a
# second preview costs nothing. At most as many as the teacher has blocks.
_MADE: WeakKeyDictionary[nn.Module, OrderedDict[str, nn.Module]] = WeakKeyDictionary()


def block_for(transformer: nn.Module, path: str, span: Span) -> nn.Module:
    """The block that `span` of the stack at `path` makes: the teacher's own where its weights are
    unchanged, else a cached one.

    A single-stream block, or one without some parts, is a block of its own over the teacher's
    parameters; averaged blocks and blocks with a gain have weights of their own. Sensitivity,
    measured rules and previews all take their edited blocks from here, so that they agree with the
    student. Raises BadInput where the family's blocks cannot become what the span says.
    """
    family = family_of(transformer)
    stack, row = blocks_of(transformer)[path], family.stack(path)
    source = stack[span.source[0]]
    if (
        len(span.source) == 1
        and span.gain == 1
        and not span.drop
        and span.stream in (None, row.kind)
    ):
        return source
    made = _MADE.setdefault(transformer, OrderedDict())
    weight = next(source.parameters())
    # training changes them
    versions = sum(p._version for block in span.source for p in stack[block].parameters())
    key = f"{path} {span.model_dump_json()} {weight.dtype} {weight.device} {versions} {id(source)}"
    if key not in made:
        block = hybrid.block(source, family.name, row, span.stream, span.drop)
        if len(span.source) > 1 or span.gain != 1:
            with torch.no_grad():
                state = student_block_state(lambda number: stack[number].state_dict(), span, row)
            block = copy.deepcopy(block)
            block.load_state_dict(state, assign=True)
        made[key] = block
    made.move_to_end(key)
    while len(made) > sum(map(len, blocks_of(transformer).values())):
        made.popitem(last=False)
    return made[key]


def forget(transformer: nn.Module) -> None:
    """Let go of a transformer's cached blocks: a scan of a large one keeps none."""
    _MADE.pop(transformer, None)
