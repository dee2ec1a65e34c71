"""Run a transformer with some of its blocks bypassed, replaced, or replaying recorded outputs.

The model's own forward runs throughout; only the forwards of single blocks change, and they are
put back afterwards. Blocks before the first change compute what they computed before, so their
recorded outputs can be replayed: the same numbers for less work. The scan of a sensitivity map (one
edit at a time) and the error of a plan (many edits at once) are both measured this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from .access import prediction
from .blocks import (
    Captured,
    Forward,
    Place,
    State,
    all_blocks,
    as_output,
    bypassing,
    capture,
    forwards,
)
from .lockstep import Edited, Lockstep
from .sampling import Call, placed
from .streaming import forward_of

Arguments = dict[str, Any]  # of the transformer's forward
Change = tuple[nn.Module, Callable[[Forward], Forward]]  # for `blocks.forwards`


class Replay:
    """A transformer whose blocks can be changed for one forward. Counts forwards of real blocks.

    evaluations: block forwards so far; bypassed and replayed blocks cost none.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        self.blocks = {block.place: block for block in all_blocks(transformer)}
        self.evaluations = 0
        weight = next(transformer.parameters())
        self.device = weight.device
        self.dtype = weight.dtype

    def arguments(self, call: Call) -> Arguments:
        """A recorded call's arguments on the model's device and in its precision."""
        arguments: Arguments = placed(call.kwargs, self.device, self.dtype)
        return arguments

    # --- changes of single blocks ---------------------------------------------------------------

    def bypassed(self, place: Place) -> Change:
        """The block returns its inputs."""
        block = self.blocks[place]
        return block.module, bypassing(block.row)

    def replayed(self, place: Place, state: State) -> Change:
        """The block returns a recorded state."""
        block = self.blocks[place]
        output = as_output(block.row, state)
        return block.module, lambda old: lambda *args, **kwargs: output

    def replaced(self, place: Place, block: nn.Module) -> Change:
        """Another block runs in its place."""
        # Taken now: it may be a block of this very model whose forward is changed too.
        forward = forward_of(block)
        return self.blocks[place].module, lambda old: self._counted(forward)

    # --- forwards -------------------------------------------------------------------------------

    @torch.no_grad()
    def prediction(self, arguments: Arguments, changes: Iterable[Change] = ()) -> torch.Tensor:
        """The prediction (B, ...) with these blocks changed."""
        with self._counting(), forwards(changes):
            return prediction(self.transformer(**arguments), self.transformer)

    @torch.no_grad()
    def predictions(self, arguments: Arguments, edits: Sequence[Edited]) -> list[torch.Tensor]:
        """The predictions (B, ...) of several edits, block by block together: a streamed block is
        read once for all."""

        def body() -> torch.Tensor:
            return prediction(self.transformer(**arguments), self.transformer)

        with self._counting():
            return Lockstep(self.blocks, body).run(edits)

    @torch.enable_grad()
    def graphed_prediction(
        self, arguments: Arguments, changes: Iterable[Change] = ()
    ) -> torch.Tensor:
        """The prediction (B, ...) on the graph of whatever the changes bring in that has a gradient.

        A block whose forward runs again in the backward (checkpointing) counts again.
        """
        with self._counting(), forwards(changes):
            return prediction(self.transformer(**arguments), self.transformer)

    @torch.no_grad()
    def record(
        self,
        arguments: Arguments,
        changes: Iterable[Change] = (),
        places: Sequence[Place] | None = None,
    ) -> tuple[torch.Tensor, Captured]:
        """The prediction (B, ...), and what the blocks at `places` (None: all) took and returned."""
        with (
            self._counting(),
            forwards(changes),
            capture(self.transformer, places) as captured,
        ):
            return prediction(self.transformer(**arguments), self.transformer), captured

    def _counting(self) -> AbstractContextManager[None]:
        return forwards((block.module, self._counted) for block in self.blocks.values())

    def _counted(self, forward: Forward) -> Forward:
        def counting(*args: Any, **kwargs: Any) -> Any:
            self.evaluations += 1
            return forward(*args, **kwargs)

        return counting
