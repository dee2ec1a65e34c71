"""One recorded call of the transformer, and its prediction under each edit of each block.

Cost: an edit of block l leaves the blocks before l as they were. One forward records what every
block returned; the edit is then evaluated from block l on, while the blocks before it replay
(models.replay). Same numbers, half the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from ..models.access import family_of
from ..models.block_cache import forget
from ..models.blocks import Block, Captured, Place
from ..models.lockstep import Edited
from ..models.replay import Arguments, Change, Replay
from ..models.sampling import Call
from ..models.streaming import is_streamed
from ..records import BadInput
from .edits import Edit
from .error import check_not_zero, not_finite
from .results import Key
from .table import resolved

TOGETHER = 8  # edits of a streamed model whose forwards go through its blocks together
SMALL = 2**30  # bytes of weights up to which edited blocks are kept from call to call


@dataclass(frozen=True)
class Reference:
    """The unedited model on one call: arguments, prediction (B, ...), every block's states."""

    arguments: Arguments
    prediction: torch.Tensor
    states: Captured


class Scan:
    """Evaluates edits on recorded calls.

    `cached=False` runs every block in every forward: what the cached scan is checked and timed
    against.
    """

    def __init__(
        self, transformer: nn.Module, edits: Sequence[Edit] = (), cached: bool = True
    ) -> None:
        self.transformer = transformer
        self.edits = list(edits)
        self.cached = cached
        self.family = family_of(transformer).name
        self.replay = Replay(transformer)
        self.shapes = {
            place: tensor_shapes(block.module) for place, block in self.replay.blocks.items()
        }
        self.blocks: dict[Place, Block] = {}
        for place, block in self.replay.blocks.items():
            self.blocks[place] = replace(block, row=block.row.fitted(dict(self.shapes[place])))
        # Edited blocks of a small teacher are kept from call to call; of a large one they would be
        # more than a second copy of it.
        small = sum(p.nbytes for p in transformer.parameters()) < SMALL
        self.keeps_edited = small and not is_streamed(transformer)
        self.streamed = is_streamed(transformer)
        self.edited: dict[tuple[str, Place], nn.Module] = {}
        self._places: dict[Edit, list[Place]] = {}
        self.left_out: set[Key] = set()  # what a race has settled and no longer measures

    # --- what can be edited, and what it costs --------------------------------------------------

    def places(self, edit: Edit) -> list[Place]:
        """Where an edit is to be measured: where it applies and is not left out."""
        return [
            place for place in self.every_place(edit) if Key(*place, edit.name) not in self.left_out
        ]

    def every_place(self, edit: Edit) -> list[Place]:
        """Where an edit applies."""
        if edit not in self._places:
            if edit.row.places is None:
                self._places[edit] = list(self.blocks)
            else:
                self._places[edit] = resolved(edit.row.places)(self, edit)
        return self._places[edit]

    def stack(self, path: str) -> list[Place]:
        """The places of one stack, in order."""
        return [place for place in self.blocks if place[0] == path]

    @property
    def evaluations(self) -> int:
        """Block forwards so far."""
        return self.replay.evaluations

    @property
    def naive_evaluations(self) -> int:
        """Block forwards of one call without replaying: a reference, then a whole forward per edit
        and block."""
        depth = len(self.blocks)
        total = depth
        for edit in self.edits:
            total += len(self.every_place(edit)) * (depth - edit.row.blocks_removed)
        return total

    @property
    def expected_evaluations(self) -> int:
        """Block forwards of one call, where the blocks run in the order of the families table."""
        if not self.cached:
            return self.naive_evaluations
        order = {place: index for index, place in enumerate(self.blocks)}
        depth = len(order)
        total = depth
        for edit in self.edits:
            for place in self.places(edit):
                total += depth - order[place] - edit.row.blocks_removed
        return total

    # --- forwards -------------------------------------------------------------------------------

    def reference(self, call: Call) -> Reference:
        """The unedited model on a call.

        Raises BadInput where the model itself cannot run on these inputs, or its prediction is not
        finite (the first block whose output is not is named).
        """
        arguments = self.replay.arguments(call)
        try:
            prediction, states = self.replay.record(arguments)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (TypeError, RuntimeError, ValueError, AttributeError) as error:
            if self._runs(arguments):
                raise  # the inputs fit: the fault is in what is wrapped around the blocks
            reason = " ".join(str(error).split())[:160]
            raise BadInput(
                f"the transformer cannot run on these inputs ({reason})",
                f"inputs of a {type(self.transformer).__name__} of this size",
                "record them with this teacher",
            ) from error
        if not torch.isfinite(prediction).all():
            raise not_finite(f"no edit{_first_not_finite(states)}", call.timestep)
        check_not_zero(prediction, call.timestep)
        return Reference(arguments, prediction, states)

    @torch.no_grad()
    def _runs(self, arguments: Arguments) -> bool:
        """Whether the bare transformer runs on these arguments."""
        try:
            self.transformer(**arguments)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception:
            return False
        return True

    def edited_prediction(self, reference: Reference, edit: Edit, place: Place) -> torch.Tensor:
        """The prediction (B, ...) with one edit of one block."""
        # Before any forward is swapped: a copied block would keep the swapped one.
        changes = self.changes(edit, place)
        replayed = self.replayed_before(place, reference.states)
        return self.replay.prediction(reference.arguments, [*replayed, *changes])

    def edited_predictions(
        self, reference: Reference, pairs: Sequence[tuple[Edit, Place]]
    ) -> Iterator[tuple[Edit, Place, torch.Tensor]]:
        """The predictions with one edit of one block each, in any order. Of a streamed model edits
        of the same and of neighbouring blocks run together, so that they share what is read.
        """
        if not (self.streamed and self.cached):
            for edit, place in pairs:
                yield edit, place, self.edited_prediction(reference, edit, place)
            return
        order = reference.states.order.index
        by_place = sorted(pairs, key=lambda pair: order(pair[1]))
        for start in range(0, len(by_place), TOGETHER):
            group = by_place[start : start + TOGETHER]
            edits = []
            for edit, place in group:
                replayed = self.replayed_before(place, reference.states)
                edits.append(Edited(place, replayed, partial(self.changes, edit, place)))
            predictions = self.replay.predictions(reference.arguments, edits)
            for (edit, place), prediction in zip(group, predictions, strict=True):
                yield edit, place, prediction

    def span_prediction(
        self, reference: Reference, block: nn.Module, path: str, first: int, last: int
    ) -> torch.Tensor:
        """The prediction (B, ...) with `block` in place of blocks first..last of a stack."""
        changes = [self.replay.replaced((path, first), block)]
        for number in range(first + 1, last + 1):
            changes.append(self.replay.bypassed((path, number)))
        replayed = self.replayed_before((path, first), reference.states)
        return self.replay.prediction(reference.arguments, [*replayed, *changes])

    def replayed_before(self, place: Place, states: Captured) -> list[Change]:
        """The blocks that ran before `place` return what they returned."""
        if not self.cached:
            return []
        before = states.order[: states.order.index(place)]
        return [self.replay.replayed(other, states.outputs[other]) for other in before]

    # --- edits ----------------------------------------------------------------------------------

    def changes(self, edit: Edit, place: Place) -> list[Change]:
        """Which blocks' forwards an edit changes, and how: for `blocks.forwards`."""
        changes: list[Change] = resolved(edit.row.changes)(self, edit, place)
        return changes

    def edited_block(self, edit: Edit, place: Place, build: Callable[[], nn.Module]) -> nn.Module:
        """The edited block beside the model's own, kept for the next call where there is room."""
        key = (edit.name, place)
        if key in self.edited:
            return self.edited[key]
        block = build()
        if self.keeps_edited:
            self.edited[key] = block
        else:
            forget(self.transformer)
        return block


def tensor_shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """The names and shapes of a module's tensors."""
    return [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]


def _first_not_finite(states: Captured) -> str:
    """The first block, in the order of the run, whose output is not finite."""
    for place in states.order:
        for value in states.outputs[place].values():
            if not torch.isfinite(value).all():
                return f", from {place[0]} block {place[1]} on,"
    return ", after the last block,"
