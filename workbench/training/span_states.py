"""One forward of a model, watched at the blocks that targets name.

`observe` keeps the states after the goals. `visit_spans` hands each target over as soon as the
model has passed its goal, and keeps nothing longer than some target needs it: of a plan's spans no
more than one's states are alive at a time.

no_grad and not inference_mode: autograd cannot save inference tensors, and student blocks take
these as input.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from ..models.blocks import Block, Forward, Place, State, all_blocks, forwards, streams_out
from .targets import Target

Arguments = dict[str, Any]  # of a block's forward, by name
# Called with a target, what its block `fed` was given, and the state after its goal.
Visit = Callable[[Target, Arguments, State], None]


class Predicts(Protocol):
    """What a model is run on: a batch, or a recorded call."""

    def predict(self, transformer: nn.Module, /) -> torch.Tensor: ...


@dataclass
class Observation:
    """The states after the goals, and the model's prediction where it was asked for."""

    states: dict[Place, State] = field(default_factory=dict)
    prediction: torch.Tensor | None = None


@torch.no_grad()
def observe(
    model: nn.Module, batch: Predicts, targets: Sequence[Target], *, predict: bool = False
) -> Observation:
    """Run the model once and keep the states after the targets' goals.

    Without `predict` it stops after the last goal, and does not run where there is none.
    """
    observation = Observation()

    def keep(target: Target, arguments: Arguments, state: State) -> None:
        observation.states[target.goal] = state

    watch = _Watch(targets, keep, with_arguments=False)
    observation.prediction = watch.run(model, batch, to_the_end=predict)
    return observation


@torch.no_grad()
def visit_spans(model: nn.Module, batch: Predicts, targets: Sequence[Target], visit: Visit) -> None:
    """Run the model up to the last goal and call `visit` at each; that may run its blocks."""
    _Watch(targets, visit, with_arguments=True).run(model, batch, to_the_end=False)


class _Enough(Exception):
    """Ends a forward: no block after this one is needed."""


class _Watch:
    """What has been seen of a forward so far, and which targets still need it."""

    def __init__(self, targets: Sequence[Target], visit: Visit, with_arguments: bool) -> None:
        self.visit = visit
        self.by_goal: dict[Place, list[Target]] = {}
        for target in targets:
            self.by_goal.setdefault(target.goal, []).append(target)
        self.arguments: dict[Place, Arguments] = {}
        # how many targets still need a block's arguments
        self.readers = Counter(target.fed for target in targets if with_arguments)
        self.visiting = False  # `visit` may run a block of the model that is watched

    def run(self, model: nn.Module, batch: Predicts, to_the_end: bool) -> torch.Tensor | None:
        """One forward; its prediction, or None where it was ended early."""
        watched = [
            b for b in all_blocks(model) if b.place in self.by_goal or b.place in self.readers
        ]
        goals = [block.place for block in watched if block.place in self.by_goal]
        if not goals and not to_the_end:
            return None
        last = None if to_the_end else goals[-1]
        changes = [
            (block.module, partial(_WatchedForward, self, block, block.place == last))
            for block in watched
        ]
        with forwards(changes), suppress(_Enough):
            return batch.predict(model)
        return None

    def enter(self, place: Place, arguments: Arguments) -> None:
        if place in self.readers:
            self.arguments[place] = arguments

    def leave(self, place: Place, state: State) -> None:
        self.visiting = True
        try:
            for target in self.by_goal[place]:
                self.visit(target, self._take_arguments(target.fed), state)
        finally:
            self.visiting = False

    def _take_arguments(self, fed: Place) -> Arguments:
        """The arguments of a block; forgotten when the last target that needs them has them."""
        if fed not in self.readers:
            return {}
        self.readers[fed] -= 1
        if self.readers[fed]:
            return self.arguments[fed]
        return self.arguments.pop(fed)


class _WatchedForward:
    """A block's forward that reports to a _Watch; `ends`: no block after it is needed."""

    def __init__(self, watch: _Watch, block: Block, ends: bool, forward: Forward) -> None:
        self.watch = watch
        self.block = block
        self.ends = ends
        self.forward = forward
        self.signature = inspect.signature(forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.watch.visiting:
            return self.forward(*args, **kwargs)
        place = self.block.place
        self.watch.enter(place, dict(self.signature.bind(*args, **kwargs).arguments))
        output = self.forward(*args, **kwargs)
        if place in self.watch.by_goal:
            self.watch.leave(place, streams_out(self.block.row, output))
        if self.ends:
            raise _Enough
        return output
