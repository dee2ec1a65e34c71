"""Single edits of a plan that measured rules try: join two neighbours, make a block slim or
single-stream, factor its modulation, drop a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..families import StackRow
from ..plans import can_single, family_of, gain_for
from ..plans.modulation import can_factor
from ..plans.removable import removable_parts
from ..plans.text_stream import single, slim, slim_parts
from ..records import Init, Modulation, Span, StackInfo
from ..specs.values import PLAN_EDITS
from .base import Request, Spans

# without being asked: a rank of modulation needs vectors recorded from prompts in some families
USUAL = tuple(kind for kind in PLAN_EDITS if kind != "modulation")
INITS: tuple[Init, ...] = ("first", "last", "mean")


@dataclass(frozen=True)
class Edit:
    """Spans of `path` become one: `count` of them, from number `at` on."""

    path: str
    at: int
    count: int
    span: Span
    about: str

    @property
    def joins(self) -> bool:
        """Whether two blocks become one."""
        return self.count > 1

    @property
    def key(self) -> str:
        """The same edit in a later round, wherever the block then stands."""
        return f"{self.path} {self.span}"

    def apply(self, stacks: Spans) -> Spans:
        """The spans after the edit."""
        old = stacks[self.path]
        new = [*old[: self.at], self.span, *old[self.at + self.count :]]
        return {**stacks, self.path: new}


def possible(request: Request, stacks: Spans) -> Iterator[Edit]:
    """Every edit that makes the student smaller, among the kinds that the request allows."""
    kinds = request.settings.edits or USUAL
    for stack in request.teacher.stacks:
        row = family_of(request.teacher).stack(stack.path)
        walls = request.walls(stack)
        protected = request.protect.get(stack.path, frozenset())
        spans = stacks[stack.path]
        for at, span in enumerate(spans):
            whole_text = at < (request.settings.whole_text or 0)
            if "join" in kinds and at + 1 < len(spans) and spans[at + 1].first not in walls:
                yield from _joins(request, stack, at, spans[at : at + 2], whole_text)
            if not protected.isdisjoint(range(span.first, span.last + 1)):
                continue
            if "slim" in kinds and not whole_text:
                yield from _slims(stack, row, at, span)
            if "single" in kinds and not whole_text and can_single(request.teacher, stack.path):
                yield from _singles(stack, row, at, span)
            if "modulation" in kinds:
                yield from _ranks(request, stack, row, at, span)
            if "parts" in kinds:
                yield from _part_drops(stack, row, at, span, whole_text)


def starts(
    request: Request, stack: StackInfo, first: int, last: int
) -> Iterator[tuple[Init, float]]:
    """(init, gain) to try for a span: those a person set, else all that fit."""
    length = last - first + 1
    gains = [1.0, float(length)]
    if request.settings.gain is not None:
        gains = [gain_for(request.settings.gain, length)]
    if not family_of(request.teacher).stack(stack.path).gain:
        gains = [1.0]
    inits = INITS if request.settings.init is None else (request.settings.init,)
    one_shape = len(set(stack.layout_of[first : last + 1])) == 1
    for init in inits:
        if init != "mean" or one_shape:
            for gain in gains:
                yield init, gain


def _joins(
    request: Request, stack: StackInfo, at: int, pair: list[Span], whole_text: bool
) -> Iterator[Edit]:
    left, right = pair
    if left.stream != right.stream:
        return
    drop = tuple(dict.fromkeys([*left.drop, *right.drop]))  # what is gone stays gone
    if whole_text:  # but for the text stream, which the joined block keeps of the teacher's
        drop = tuple(name for name in drop if not is_text(name))
    blocks = (left.first, right.last)
    for init, gain in starts(request, stack, *blocks):
        span = Span(blocks=blocks, init=init, gain=gain, stream=left.stream, drop=drop)
        span = span.model_copy(update={"modulation": left.modulation or right.modulation})
        about = f"blocks {blocks[0]}-{blocks[1]} in one, init {init}, gain {gain:g}"
        yield Edit(stack.path, at, 2, span, about)


def _singles(stack: StackInfo, row: StackRow, at: int, span: Span) -> Iterator[Edit]:
    has_text = any(name.startswith(row.text) for name in stack.tensors(span.source[0]))
    if span.stream is None and has_text:
        yield Edit(stack.path, at, 1, single(span), "text and image share weights")


def _slims(stack: StackInfo, row: StackRow, at: int, span: Span) -> Iterator[Edit]:
    smaller = slim(span, slim_parts(row))
    if set(smaller.drop) != set(span.drop):
        yield Edit(stack.path, at, 1, smaller, "the text is only read")


def _ranks(
    request: Request, stack: StackInfo, row: StackRow, at: int, span: Span
) -> Iterator[Edit]:
    if span.rank is None and request.edit_rank is not None and can_factor(span, stack, row):
        smaller = span.model_copy(update={"modulation": Modulation(rank=request.edit_rank)})
        yield Edit(stack.path, at, 1, smaller, f"modulation of rank {request.edit_rank}")


def is_text(part: str) -> bool:
    """Whether a part is of the text stream."""
    return part.startswith("text.")


def _part_drops(
    stack: StackInfo, row: StackRow, at: int, span: Span, whole_text: bool
) -> Iterator[Edit]:
    for name in removable_parts(span, stack, row):
        if name not in span.drop and not (whole_text and is_text(name)):
            smaller = span.model_copy(update={"drop": (*span.drop, name)})
            yield Edit(stack.path, at, 1, smaller, f"{name} dropped")
