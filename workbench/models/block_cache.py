"""The blocks a student would have, made beside a loaded teacher and kept while it lives."""

from __future__ import annotations

import copy
from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .. import students
from ..families import StackRow
from ..records import BadInput, Span
from ..students.modulation_factors import factors_anew
from ..students.modulation_fit import Basis
from ..students.weights_from_span import student_block_state
from . import streaming
from .access import blocks_of, family_of
from .conditioning import basis_of_module, given_vectors
from .stored_form import ADAPTER

# Blocks that are not the teacher's own, kept per model and span while the model lives, so that a
# second preview costs nothing. At most as many as the teacher has blocks.
_CACHE: WeakKeyDictionary[nn.Module, OrderedDict[str, nn.Module]] = WeakKeyDictionary()


def check_plain(block: nn.Module, where: str) -> None:
    """Refuse a block with an adapter in it: the mean of two LoRAs' factors is not the LoRA of the
    mean, and another adapter may be switched on later.
    """
    names = [name for name, _ in block.named_parameters()]
    adapters = [name for name in names if ADAPTER.search(name)]
    if adapters:
        raise BadInput(
            f"block {where} has a LoRA that is not fused ({adapters[0]})",
            "a model without adapters",
            "fuse_lora() and unload_lora_weights() first",
        )


def block_for(transformer: nn.Module, path: str, span: Span) -> nn.Module:
    """The block that `span` of the stack at `path` makes: the teacher's own where its weights are
    unchanged, else a cached one.

    A single-stream block, or one without some parts, is a block of its own over the teacher's
    parameters; averaged blocks and blocks with a gain have weights of their own. Sensitivity,
    measured rules and previews all take their edited blocks from here, so that they agree with the
    student. Raises BadInput where the family's blocks cannot become what the span says.
    """
    family = family_of(transformer)
    stacks = blocks_of(transformer)
    stack = stacks[path]
    row = family.stack(path)
    own_weights = len(span.source) > 1 or span.gain != 1
    as_it_is = not span.drop and not span.rank and span.stream in (None, row.kind)
    if not own_weights and as_it_is:
        return stack[span.source[0]]
    for index in span.source:
        check_plain(stack[index], f"{path}.{index}")
    cache = _CACHE.setdefault(transformer, OrderedDict())
    key = f"{cache_key(stack, path, span)} {given_vectors(transformer)}"
    if key not in cache:
        source = stack[span.source[0]]
        with streaming.loaded(source):  # parts that go take rows of linears with them
            block = students.student_block(
                source, family.name, row, span.stream, span.drop, span.rank
            )
        basis = basis_for(transformer, source, span, row)
        if own_weights:
            cache[key] = with_weights(block, stack, span, row, basis)
        elif basis is not None:
            cache[key] = with_factors(block, source, span, row, basis)
        else:
            cache[key] = block
    cache.move_to_end(key)
    while len(cache) > sum(len(blocks) for blocks in stacks.values()):
        cache.popitem(last=False)
    return cache[key]


def cache_key(stack: nn.ModuleList, path: str, span: Span) -> str:
    """What a cached block was made of; training changes the versions of the parameters."""
    source = stack[span.source[0]]
    weight = next(source.parameters())
    versions = sum(p._version for block in span.source for p in stack[block].parameters())
    return f"{path} {span.model_dump_json()} {weight.dtype} {weight.device} {versions} {id(source)}"


def basis_for(transformer: nn.Module, source: nn.Module, span: Span, row: StackRow) -> Basis | None:
    """The basis of the conditioning vectors, where the span's modulation is factored anew."""
    layout = {name: tuple(tensor.shape) for name, tensor in source.state_dict().items()}
    if factors_anew(layout, span, row) is None:
        return None
    return basis_of_module(transformer)


def with_factors(
    block: nn.Module, source: nn.Module, span: Span, row: StackRow, basis: Basis
) -> nn.Module:
    """The block with the factors of its modulation; its other weights stay the teacher's own."""
    empty = {name for name, tensor in block.state_dict().items() if tensor.is_meta}
    with torch.no_grad(), streaming.loaded(source):
        state = student_block_state(lambda _: source.state_dict(), span, row, basis)
    factors = {name: state[name] for name in empty}
    block.load_state_dict(factors, strict=False, assign=True)
    return block


def with_weights(
    block: nn.Module, stack: nn.ModuleList, span: Span, row: StackRow, basis: Basis | None
) -> nn.Module:
    """A copy of the block with the weights that the span makes of its teacher blocks."""
    with torch.no_grad(), streaming.loaded(*[stack[number] for number in span.source]):
        state = student_block_state(lambda number: stack[number].state_dict(), span, row, basis)
    block = copy.deepcopy(block)
    block.load_state_dict(state, assign=True)
    return block


def forget(transformer: nn.Module) -> None:
    """Drop a transformer's cached blocks: a scan of a large one keeps none."""
    _CACHE.pop(transformer, None)
