"""Random swaps that keep a student as small as it is: what the search rule tries."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..records import Span
from .base import Request, Spans
from .edits import starts

# (request, stack, its spans, source of randomness) -> the spans after a swap, or None
Swap = Callable[[Request, str, list[Span], random.Random], list[Span] | None]


def swap(request: Request, stacks: Spans, draws: random.Random) -> Spans | None:
    """The spans after one swap drawn at random, or None where that kind of swap does not fit."""
    paths = [path for path, spans in stacks.items() if spans]
    path = draws.choices(paths, [len(stacks[path]) for path in paths])[0]
    kinds: list[Swap] = [move_boundary, exchange, split_and_join, start_otherwise]
    new = draws.choice(kinds)(request, path, list(stacks[path]), draws)
    if new is None or new == stacks[path]:
        return None
    return {**stacks, path: new}


def move_boundary(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """A boundary between two spans moves by one block."""
    if len(spans) < 2:
        return None
    at = draws.randrange(len(spans) - 1)
    by = draws.choice((-1, 1))
    left = spans[at]
    right = spans[at + 1]
    if not left.first <= left.last + by < right.last:
        return None
    return [
        *spans[:at],
        redrawn(request, path, left, (left.first, left.last + by), draws),
        redrawn(request, path, right, (right.first + by, right.last), draws),
        *spans[at + 2 :],
    ]


def split_and_join(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """One span becomes two, two others become one."""
    long = long_spans(spans)
    if not long or len(spans) < 2:
        return None
    split = draws.choice(long)
    join = draws.choice(range(len(spans) - 1))
    if split in (join, join + 1):
        return None
    span = spans[split]
    cut = draws.randrange(span.first + 1, span.last + 1)
    halves = [
        redrawn(request, path, span, (span.first, cut - 1), draws),
        redrawn(request, path, span, (cut, span.last), draws),
    ]
    blocks = (spans[join].first, spans[join + 1].last)
    joined = redrawn(request, path, spans[join], blocks, draws)
    out: list[Span] = []
    for number, old in enumerate(spans):
        if number == split:
            out += halves
        elif number == join:
            out.append(joined)
        elif number != join + 1:
            out.append(old)
    return out


def start_otherwise(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """A span of several blocks gets another init or gain."""
    long = long_spans(spans)
    if not long:
        return None
    at = draws.choice(long)
    spans[at] = redrawn(request, path, spans[at], spans[at].blocks, draws)
    return spans


EXCHANGED = ("stream", "drop", "modulation")  # fields of a span


def exchange(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """Two blocks exchange stream, dropped parts and rank of modulation."""
    edited = []
    for number, span in enumerate(spans):
        if span.stream or span.drop or span.rank:
            edited.append(number)
    if not edited:
        return None
    one = draws.choice(edited)
    other = draws.randrange(len(spans))
    before = spans[one]
    after = spans[other]
    spans[one] = before.model_copy(update={name: getattr(after, name) for name in EXCHANGED})
    spans[other] = after.model_copy(update={name: getattr(before, name) for name in EXCHANGED})
    return spans


def long_spans(spans: list[Span]) -> list[int]:
    """The numbers of the spans of several blocks."""
    return [number for number, span in enumerate(spans) if len(span) > 1]


def redrawn(
    request: Request, path: str, span: Span, blocks: tuple[int, int], draws: random.Random
) -> Span:
    """The span over these blocks with an init and gain drawn from those allowed."""
    if blocks[0] == blocks[1]:
        return span.model_copy(update={"blocks": blocks, "init": "first", "gain": 1.0})
    choices = list(starts(request, request.teacher.stack(path), *blocks))
    init, gain = draws.choice(choices)
    return span.model_copy(update={"blocks": blocks, "init": init, "gain": gain})
