"""Several forwards of one model that go through its blocks together, so that a streamed block is
read once for all of them.

Each forward is the model's own, in a thread of its own, and only one of them runs at a time: it
waits before every block that it needs, until all others have come as far. The numbers are those of
one forward after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Semaphore, Thread
from typing import Any

import torch
from torch import nn

from .blocks import Block, Forward, Place, forwards, own_forwards
from .streaming import loaded

Change = tuple[nn.Module, Callable[[Forward], Forward]]


class _Cancelled(BaseException):
    """Ends a forward whose neighbour failed."""


@dataclass
class Edited:
    """One forward: what is replayed before `place`, and what is changed from there on. `changes`
    is called when the forward comes to `place`, and what it makes is let go behind it.
    """

    place: Place
    replayed: Sequence[Change]
    changes: Callable[[], Sequence[Change]]


@dataclass
class _Run:
    """A forward in its thread."""

    edited: Edited
    body: Callable[[], torch.Tensor]
    waits_at: Place | None = None
    done: bool = False
    cancelled: bool = False
    result: torch.Tensor | None = None
    error: BaseException | None = None
    changed: dict[nn.Module, Callable[[Forward], Forward]] = field(default_factory=dict)
    go: Semaphore = field(default_factory=lambda: Semaphore(0))
    paused: Semaphore = field(default_factory=lambda: Semaphore(0))

    def start(self) -> None:
        self.changed.update(self.edited.replayed)
        Thread(target=self._main, daemon=True).start()

    def resume(self) -> None:
        """Let it run until it waits again, or is done."""
        self.waits_at = None
        self.go.release()
        self.paused.acquire()

    def wait(self, place: Place) -> None:
        """Called by the forward itself."""
        self.waits_at = place
        self.paused.release()
        self.go.acquire()
        if self.cancelled:
            raise _Cancelled

    def _main(self) -> None:
        self.go.acquire()
        try:
            if not self.cancelled:
                with torch.no_grad():
                    self.result = self.body()
        except BaseException as error:
            self.error = error
        self.done = True
        self.paused.release()


class Lockstep:
    """Runs `body`, a forward of the model, once for each of several edits."""

    def __init__(self, blocks: Mapping[Place, Block], body: Callable[[], torch.Tensor]) -> None:
        self.blocks = blocks
        self.order = {place: number for number, place in enumerate(blocks)}
        self.body = body
        self.current: _Run | None = None

    def run(self, edits: Sequence[Edited]) -> list[torch.Tensor]:
        """The results, in the order of the edits."""
        runs = [_Run(edited, self.body) for edited in edits]
        changes = [(block.module, self._waiting(block)) for block in self.blocks.values()]
        with forwards(changes):
            for run in runs:
                run.start()
            try:
                self._advance(runs)
            finally:
                self._cancel([run for run in runs if not run.done])
        return [run.result for run in runs if run.result is not None]

    def _advance(self, runs: Sequence[_Run]) -> None:
        for run in runs:
            self._resume(run)
        while True:
            waiting = [run.waits_at for run in runs if run.waits_at is not None]
            if not waiting:
                return
            place = min(waiting, key=self.order.__getitem__)
            with loaded(self.blocks[place].module, read_ahead=True):
                for run in runs:
                    if run.waits_at == place:
                        self._resume(run)

    def _resume(self, run: _Run) -> None:
        self.current = run
        run.resume()
        if run.error is not None:
            raise run.error

    def _cancel(self, runs: Sequence[_Run]) -> None:
        for run in runs:
            run.cancelled = True
            run.resume()

    def _waiting(self, block: Block) -> Callable[[Forward], Forward]:
        """A change for `forwards`: the block waits for the other runs, unless it is replayed or
        bypassed in this one.
        """

        def change(old: Forward) -> Forward:
            def new(*args: Any, **kwargs: Any) -> Any:
                return self._forward(block, old)(*args, **kwargs)

            return new

        return change

    def _forward(self, block: Block, old: Forward) -> Forward:
        """What the current run calls in place of the block, when its turn has come."""
        run = self.current
        assert run is not None
        change = run.changed.pop(block.module, None)
        if change is not None:
            return change(old)
        run.wait(block.place)
        if block.place == run.edited.place:
            with own_forwards(each.module for each in self.blocks.values()):
                run.changed.update(run.edited.changes())
            change = run.changed.pop(block.module, None)
        return old if change is None else change(old)
