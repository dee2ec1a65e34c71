"""Single steps on a plan that measured rules try: join two neighbours, make a block slim or
single-stream, drop a part, move a boundary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..plans import can_single, family_of
from ..plans.text_stream import slim, slim_parts
from ..records import Init, Span, StackInfo
from .base import Request, Spans

ALL = "join,slim,single,parts"
INITS: tuple[Init, ...] = ("first", "last", "mean")


@dataclass(frozen=True)
class Edit:
    """A step: the spans of `path` from number `at` on, `count` of them, become `spans`."""

    path: str
    at: int
    count: int
    spans: tuple[Span, ...]
    about: str

    def made(self, stacks: Spans) -> Spans:
        old = stacks[self.path]
        return {**stacks, self.path: [*old[: self.at], *self.spans, *old[self.at + self.count :]]}

    @property
    def key(self) -> str:
        """The same step in a later round, wherever the block then stands."""
        return f"{self.path} {self.spans}"


def possible(request: Request, stacks: Spans) -> Iterator[Edit]:
    """Every edit that makes the student smaller, among the kinds that the request allows."""
    kinds = set(str(request.options.get("edits") or ALL).split(","))
    for stack in request.teacher.stacks:
        walls, alone = request.walls(stack), request.protect.get(stack.path, frozenset())
        spans = stacks[stack.path]
        for at, span in enumerate(spans):
            if "join" in kinds and at + 1 < len(spans) and spans[at + 1].first not in walls:
                yield from _joins(request, stack, at, span, spans[at + 1])
            if set(range(span.first, span.last + 1)) & alone:
                continue
            if "slim" in kinds:
                yield from _slims(request, stack, at, span)
            if "single" in kinds:
                yield from _singles(request, stack, at, span)
            if "parts" in kinds:
                yield from _parts(request, stack, at, span)


def shapes(
    request: Request, stack: StackInfo, first: int, last: int
) -> Iterator[tuple[Init, float]]:
    """(init, gain) to try for a span: what was asked for, else all."""
    length = float(last - first + 1)
    gains: tuple[float, ...] = (
        (1.0, length)
        if request.gain is None
        else (length if request.gain == "length" else float(request.gain),)
    )
    if not family_of(request.teacher).stack(stack.path).gain:
        gains = (1.0,)
    alike = len(set(stack.layout_of[first : last + 1])) == 1
    for init in (request.init,) if request.init else INITS:
        if init != "mean" or alike:
            yield from ((init, gain) for gain in gains)


def _joins(request: Request, stack: StackInfo, at: int, one: Span, two: Span) -> Iterator[Edit]:
    if one.stream != two.stream:
        return
    drop = tuple(dict.fromkeys([*one.drop, *two.drop]))  # what is gone stays gone
    for init, gain in shapes(request, stack, one.first, two.last):
        span = Span(
            blocks=(one.first, two.last), init=init, gain=gain, stream=one.stream, drop=drop
        )
        yield Edit(
            stack.path,
            at,
            2,
            (span,),
            f"blocks {one.first}-{two.last} in one, init {init}, gain {gain:g}",
        )


def _singles(request: Request, stack: StackInfo, at: int, span: Span) -> Iterator[Edit]:
    row = family_of(request.teacher).stack(stack.path)
    layout = stack.tensors(span.source[0])
    if (
        span.stream is None
        and can_single(request.teacher, stack.path)
        and any(name.startswith(row.text) for name in layout)
    ):
        drop = tuple(part for part in span.drop if not part.startswith("text."))
        one = span.model_copy(update={"stream": "single", "drop": drop})
        yield Edit(stack.path, at, 1, (one,), "text and image share weights")


def _slims(request: Request, stack: StackInfo, at: int, span: Span) -> Iterator[Edit]:
    one = slim(span, slim_parts(family_of(request.teacher).stack(stack.path)))
    if set(one.drop) != set(span.drop):
        yield Edit(stack.path, at, 1, (one,), "the text is only read")


def _parts(request: Request, stack: StackInfo, at: int, span: Span) -> Iterator[Edit]:
    row = family_of(request.teacher).stack(stack.path)
    layout = stack.tensors(span.source[0])
    for name, part in row.fitted(layout).parts.items():
        last = part.last_only and span.last != stack.depth - 1
        if (
            name not in span.drop
            and not last
            and not (span.stream == "single" and name.startswith("text."))
        ):
            yield Edit(
                stack.path,
                at,
                1,
                (span.model_copy(update={"drop": (*span.drop, name)}),),
                f"{name} dropped",
            )
