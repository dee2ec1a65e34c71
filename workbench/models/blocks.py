"""Capture, bypass, inject and replace blocks of a loaded transformer while the model's own forward
runs.

Every context manager puts a `forward` on single block objects and takes it off again, also after an
exception: the model is then bit for bit what it was. What a block takes and returns comes from the
families table. diffusers' apply_layer_skip is not used: it returns the two streams of encoder-first
blocks swapped.

Contexts nest; the one entered last sees a call first.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..families import StackRow
from ..records import BadInput
from .access import blocks_of, family_of

Place = tuple[str, int]  # (stack path, block number)
State = dict[str, torch.Tensor]  # stream name -> (B, N, D)
Forward = Callable[..., Any]


@dataclass(frozen=True)
class Block:
    """One block with its place and the names of its streams."""

    place: Place
    module: nn.Module
    row: StackRow


def all_blocks(transformer: nn.Module) -> list[Block]:
    """Every block, stack after stack in the order of the families table."""
    family = family_of(transformer)
    return [
        Block((path, index), module, family.stack(path))
        for path, stack in blocks_of(transformer).items()
        for index, module in enumerate(stack)
    ]


def block_at(transformer: nn.Module, place: Place) -> Block:
    for block in all_blocks(transformer):
        if block.place == place:
            return block
    raise BadInput(
        f"{place[0]} has no block {place[1]}", "a block of this transformer", "correct the number"
    )


@contextmanager
def forwards(changes: Iterable[tuple[nn.Module, Callable[[Forward], Forward]]]) -> Iterator[None]:
    """Give modules another forward: `change(old forward) -> new forward`. The old ones return on
    leaving.
    """
    with ExitStack() as stack:
        for module, change in changes:
            old = module.forward
            stack.callback(_restore, module, module.__dict__.get("forward"))
            # __wrapped__ keeps the block's signature readable through any number of wrappers.
            module.__dict__["forward"] = functools.update_wrapper(
                change(old), old, assigned=(), updated=()
            )
        yield


@contextmanager
def own_forwards(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The modules' own forwards for a while, inside `forwards`: to copy a module without the one
    that was given to it.
    """
    former = {module: module.__dict__.pop("forward", None) for module in modules}
    try:
        yield
    finally:
        for module, forward in former.items():
            _restore(module, forward)


def _restore(module: nn.Module, former: Forward | None) -> None:
    if former is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = former


# --- streams in and out ---------------------------------------------------------------------------


def streams_in(
    row: StackRow, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> State:
    """The streams among a block call's arguments."""
    bound = inspect.signature(forward).bind(*args, **kwargs).arguments
    return {name: bound[name] for name in row.inputs if bound.get(name) is not None}


def streams_out(row: StackRow, output: Any) -> State:
    """The streams a block returned, by name."""
    values = output if isinstance(output, tuple) else (output,)
    return {
        name: value for name, value in zip(row.returns, values, strict=False) if value is not None
    }


def as_output(row: StackRow, state: State) -> Any:
    """A state in the form and order in which the block returns it."""
    values = tuple(state.get(name) for name in row.returns)
    return values if len(values) > 1 else values[0]


# --- what one can do with blocks ------------------------------------------------------------------


def bypassing(row: StackRow) -> Callable[[Forward], Forward]:
    """A change for `forwards`: the block returns its inputs."""

    def change(old: Forward) -> Forward:
        return lambda *args, **kwargs: as_output(row, streams_in(row, old, args, kwargs))

    return change


@contextmanager
def bypass(transformer: nn.Module, places: Iterable[Place]) -> Iterator[None]:
    """Blocks at `places` return their inputs, as if they were removed."""
    chosen = [block_at(transformer, place) for place in places]
    with forwards((block.module, bypassing(block.row)) for block in chosen):
        yield


def fed(state: State) -> Callable[[Forward], Forward]:
    """A change for `forwards`: the block computes on these streams."""

    def change(old: Forward) -> Forward:
        signature = inspect.signature(old)

        def new(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.arguments.update(state)
            return old(*bound.args, **bound.kwargs)

        return new

    return change


@contextmanager
def inject(transformer: nn.Module, states: Mapping[Place, State]) -> Iterator[None]:
    """Blocks at the places given compute on these streams instead of what the model passes to them
    (teacher-fed blocks).
    """
    changes = []
    for place, state in states.items():
        block = block_at(transformer, place)
        changes.append((block.module, fed(state)))
    with forwards(changes):
        yield


@dataclass
class Captured:
    """Streams of each block in one forward; a later forward overwrites them. `order` is the order
    of the calls.
    """

    inputs: dict[Place, State] = field(default_factory=dict)
    outputs: dict[Place, State] = field(default_factory=dict)
    order: list[Place] = field(default_factory=list)


def recording(block: Block, captured: Captured, detach: bool) -> Callable[[Forward], Forward]:
    """A change for `forwards`: what the block takes and returns goes into `captured`."""

    def store(state: State) -> State:
        if not detach:
            return state
        return {name: value.detach() for name, value in state.items()}

    def change(old: Forward) -> Forward:
        def new(*args: Any, **kwargs: Any) -> Any:
            captured.inputs[block.place] = store(streams_in(block.row, old, args, kwargs))
            output = old(*args, **kwargs)
            captured.outputs[block.place] = store(streams_out(block.row, output))
            captured.order.append(block.place)
            return output

        return new

    return change


@contextmanager
def capture(
    transformer: nn.Module, places: Iterable[Place] | None = None, *, detach: bool = True
) -> Iterator[Captured]:
    """Record what the blocks take and return while the model runs; all blocks unless `places` are
    given.

    Tensors are not copied. `detach=False` keeps them on the autograd graph, for feature losses.
    """
    captured = Captured()
    if places is None:
        blocks = all_blocks(transformer)
    else:
        blocks = [block_at(transformer, place) for place in places]
    with forwards((block.module, recording(block, captured, detach)) for block in blocks):
        yield captured
