"""One call of the transformer, and what each edit of each block changes in it.

Cost: an edit of block l leaves the blocks before l as they were. One forward caches what every
block returned; the edit is then evaluated from block l on, by the model's own forward in which the
blocks before l replay. Same numbers, half the work.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .. import students as hybrid
from ..models import Call, family_of, placed, prediction
from ..models import student_blocks as standins
from ..models.blocks import (
    Block,
    Captured,
    Forward,
    Place,
    all_blocks,
    as_output,
    bypassing,
    capture,
    forwards,
)
from ..records import BadInput
from ..students import int4 as fakequant
from .naming import Edit

Scores = dict[str, list[float]]  # "stack block edit" -> one score per sample
Changes = list[tuple[nn.Module, Callable[[Forward], Forward]]]  # for `blocks.forwards`
SMALL = 2**30  # bytes of weights up to which edited blocks are kept from call to call


class Scan:
    """Evaluates every edit of every block on one call. Counts each forward of a real block."""

    def __init__(self, transformer: nn.Module, edits: Sequence[Edit], cached: bool = True) -> None:
        self.transformer, self.edits, self.cached = transformer, edits, cached
        self.family = family_of(transformer).name
        self.blocks = {
            block.place: replace(block, row=block.row.fitted(dict(shapes(block.module))))
            for block in all_blocks(transformer)
        }
        self.merges = {
            place: other for place in self.blocks if (other := self._next(place)) is not None
        }
        self.made: dict[tuple[str, Place], nn.Module] = {}
        self.evaluations = 0
        weight = next(transformer.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        # Edited blocks of a small teacher are kept from call to call; of a large one they would be
        # more than a second copy of it.
        self.keep = sum(p.nbytes for p in transformer.parameters()) < SMALL

    @property
    def naive_evaluations(self) -> int:
        """Block forwards of leave-one-out with whole forwards: one reference, then one forward per
        edit and block.
        """
        depth = len(self.blocks)
        return depth + sum(
            depth - 1 if edit.kind in ("drop", "merge") else depth
            for edit in self.edits
            for _ in self.places(edit)
        )

    @property
    def expected_evaluations(self) -> int:
        """Block forwards of one call of this scan, where the blocks run in the order of the table."""
        if not self.cached:
            return self.naive_evaluations
        order = {place: index for index, place in enumerate(self.blocks)}
        depth = len(order)
        return depth + sum(
            depth - order[place] - (edit.kind in ("drop", "merge"))
            for edit in self.edits
            for place in self.places(edit)
        )

    def places(self, edit: Edit) -> list[Place]:
        """Where an edit applies."""
        if edit.kind == "merge":
            return [place for place in self.merges if edit.gain == 1 or self.blocks[place].row.gain]
        if edit.kind == "drop":
            return list(self.blocks)
        if edit.kind == "int4":
            return [
                place for place, block in self.blocks.items() if fakequant.quantized(block.module)
            ]
        if edit.kind == "single":
            return [place for place in self.blocks if self._can_single(place)]
        return [
            place
            for place, block in self.blocks.items()
            if (part := block.row.parts.get(edit.part)) is not None
            and (not part.last_only or (place[0], place[1] + 1) not in self.blocks)
        ]

    def _can_single(self, place: Place) -> bool:
        """Whether the block has two streams that can become one; a pinned block has not, nor has
        one that is single already.
        """
        stack, row = (
            [other for other in self.blocks if other[0] == place[0]],
            self.blocks[place].row,
        )
        return (
            row.kind == "dual"
            and hybrid.can_single(self.family, place[0])
            and place[1] not in row.pinned_in(len(stack))
        )

    def _next(self, place: Place) -> Block | None:
        """The next block of the stack, where it has the same shapes."""
        other = self.blocks.get((place[0], place[1] + 1))
        if other is None or shapes(other.module) != shapes(self.blocks[place].module):
            return None
        return other

    @torch.no_grad()
    def reference(self, call: Call) -> tuple[dict[str, Any], torch.Tensor, Captured]:
        """The call's arguments on the model's device, its prediction (B, ...), and what every block
        took and returned.

        Raises BadInput where the inputs do not fit the transformer, or its prediction is not finite
        (the first block to blame is named).
        """
        kwargs = placed(call.kwargs, self.device, self.dtype)
        with self._counting(), capture(self.transformer) as held:
            try:
                value = prediction(self.transformer(**kwargs), self.transformer)
            except (TypeError, RuntimeError, ValueError, AttributeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise BadInput(
                    f"the transformer cannot run on these inputs "
                    f"({' '.join(str(error).split())[:160]})",
                    f"inputs of a {type(self.transformer).__name__} of this size",
                    "record them with this teacher",
                ) from None
        if not torch.isfinite(value).all():
            raise not_finite(f"no edit{_culprit(held)}", call)
        return kwargs, value, held

    @torch.no_grad()
    def call(self, call: Call) -> tuple[Scores, int]:
        """Scores per "stack block edit", one a sample, and the block forwards this took."""
        self.evaluations = 0
        kwargs, reference, held = self.reference(call)
        scores: Scores = {}
        for edit in self.edits:
            for place in self.places(edit):
                before = held.order[: held.order.index(place)] if self.cached else []
                replays = {p: as_output(self.blocks[p].row, held.outputs[p]) for p in before}
                changed = prediction(self._edited(edit, place, replays, kwargs), self.transformer)
                if not torch.isfinite(changed).all():
                    raise not_finite(f"{edit.name} of {place[0]} block {place[1]}", call)
                scores[f"{place[0]} {place[1]} {edit.name}"] = relative_change(
                    reference, changed
                ).tolist()
        return scores, self.evaluations

    def _edited(
        self, edit: Edit, place: Place, replays: Mapping[Place, Any], kwargs: dict[str, Any]
    ) -> Any:
        """The model's forward with one edit; blocks in `replays` return what they returned before."""
        # made before anything is swapped: a copied block would keep the swapped forward
        changes = self.changes(edit, place)
        return self._run(replays, changes, kwargs)

    def _run(self, replays: Mapping[Place, Any], changes: Changes, kwargs: dict[str, Any]) -> Any:
        before: Changes = [
            (self.blocks[other].module, _always(output)) for other, output in replays.items()
        ]
        with self._counting(), forwards(before + changes):
            return self.transformer(**kwargs)

    @torch.no_grad()
    def standing_in(
        self,
        block: nn.Module,
        path: str,
        first: int,
        last: int,
        kwargs: dict[str, Any],
        held: Captured,
    ) -> torch.Tensor:
        """The prediction (B, ...) with `block` in place of blocks first..last of a stack; blocks
        before them replay what `held` has.
        """
        forward = block.forward  # taken now: it may be a block of this very model
        before = held.order[: held.order.index((path, first))]
        changes: Changes = [(self.blocks[path, first].module, lambda old: self._counted(forward))]
        changes += [
            (self.blocks[path, b].module, bypassing(self.blocks[path, b].row))
            for b in range(first + 1, last + 1)
        ]
        replays = {
            place: as_output(self.blocks[place].row, held.outputs[place]) for place in before
        }
        return prediction(self._run(replays, changes, kwargs), self.transformer)

    def changes(self, edit: Edit, place: Place) -> Changes:
        """The forwards that an edit changes, for `blocks.forwards`."""
        block = self.blocks[place]
        if edit.kind == "drop":
            return [(block.module, bypassing(block.row))]
        stand_in, changes = self._stand_in(edit, place), Changes()
        # taken now: with merge:last:1 it is the next block's, which is bypassed below
        forward = stand_in.forward
        if stand_in is not block.module:  # merge:first:1 leaves the block as it is
            changes.append((block.module, lambda old: self._counted(forward)))
        if edit.kind == "merge":
            changes.append((self.merges[place].module, bypassing(block.row)))
        return changes

    def _stand_in(self, edit: Edit, place: Place) -> nn.Module:
        """The edited block, beside the model's own."""
        if (edit.name, place) in self.made:
            return self.made[edit.name, place]
        if edit.kind == "int4":
            source = self.blocks[place].module
            made = copy.deepcopy(source)
            made.load_state_dict(fakequant.int4_state(source), assign=True)
        else:
            made = standins.block_for(self.transformer, place[0], edit.span(place[1]))
        if self.keep:
            self.made[edit.name, place] = made
        else:
            standins.forget(self.transformer)
        return made

    def _counting(self) -> Any:
        return forwards((block.module, self._counted) for block in self.blocks.values())

    def _counted(self, old: Forward) -> Forward:
        def new(*args: Any, **kwargs: Any) -> Any:
            self.evaluations += 1
            return old(*args, **kwargs)

        return new


def relative_change(reference: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """||v - v'||^2 / ||v||^2 per sample, in at least float32: (B, ...) -> (B,)."""
    exact = torch.promote_types(reference.dtype, torch.float32)
    v, other = reference.to(exact).flatten(1), changed.to(exact).flatten(1)  # (B, N*D)
    return (v - other).square().sum(1) / v.square().sum(1)


def not_finite(what: str, call: Call) -> BadInput:
    return BadInput(
        f"the prediction is not finite with {what} at timestep {call.timestep:.0f}",
        "finite numbers",
        "profile in bf16 or float32, or leave this edit out",
    )


def _culprit(held: Captured) -> str:
    """The first block, in the order of the run, that made something that is not finite."""
    for place in held.order:
        if not all(torch.isfinite(value).all() for value in held.outputs[place].values()):
            return f", from {place[0]} block {place[1]} on,"
    return ", behind the last block,"


def _always(output: Any) -> Callable[[Forward], Forward]:
    return lambda old: lambda *args, **kwargs: output


def shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]
