"""Search: improve any plan by measured swaps, within a time or a number of plans. Ours.

A swap keeps the student as small: a boundary between two spans moves by a block; one span splits
while two others of the stack join; a span gets another init or gain; two blocks exchange their
stream or their dropped parts. Swaps are drawn at random from a fixed seed; one that lowers the
measured error is kept. With a number of plans the answer is the same every time; with minutes it
depends on the machine.

What `measure` says is what is searched for: the error before training here; a rule that measures
after a short recovery is this one with another `measure` (TinyFusion's point, arXiv 2412.01199:
calibration error does not foretell what training recovers).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from ..plans import check, difference, identity
from ..records import BadInput, Progress, Span
from .base import Proposal, Request, Spans, Work
from .edits import shapes

TRIES = 200  # plans, where neither time nor number is given


def propose(request: Request) -> Work:
    assert request.measure is not None
    start = request.start or identity(request.teacher)
    stacks: Spans = dict(start.stacks)
    if over := request.excess(stacks):
        raise BadInput(
            f"the plan to improve is over the budget by {over:.3f} of the teacher",
            "one that meets it",
            "start with another",
        )
    minutes, tries = request.options.get("minutes"), request.options.get("tries")
    tries = TRIES if tries is None and minutes is None else tries
    first = error = request.measure(start)
    began, draws, tried = time.monotonic(), random.Random(0), set[str]()
    count = idle = 0
    request.settle(start)

    def done() -> float:
        shares = [
            count / tries if tries else 0.0,
            (time.monotonic() - began) / 60 / minutes if minutes else 0.0,
            idle / 2000,
        ]
        return min(max(shares), 1.0)  # 2000 draws that gave nothing new: nothing is left to try

    while done() < 1:
        new = _swap(request, stacks, draws)
        key = str(new)
        if new is None or key in tried or request.excess(new) or not _sound(request, new):
            idle += 1
            continue
        tried.add(key)
        now, count, idle = request.measure(request.plan(new)), count + 1, 0
        text = f"{count} plans tried, error {first:.4g} -> {error:.4g}"
        if now < error:
            text = f"{'; '.join(difference(request.plan(stacks), request.plan(new)))}: error {error:.4g} -> {now:.4g}"
            stacks, error = new, now
            request.settle(request.plan(stacks))
        yield Progress(
            step=round(1000 * done()),
            total=1000,
            message=text,
            metrics={"error": error, "plans": count},
        )
    word = f"{count} plans tried, error {first:.4g} -> {error:.4g}"
    before = {path: set(spans) for path, spans in start.stacks.items()}
    return Proposal(
        stacks,
        {
            path: [
                f"as it was; {word}" if span in before[path] else f"swapped in; {word}"
                for span in spans
            ]
            for path, spans in stacks.items()
        },
    )


def _sound(request: Request, stacks: Spans) -> bool:
    try:
        check(request.plan(stacks), request.teacher)
    except BadInput:
        return False
    return all(
        request.walls(stack) <= {span.first for span in stacks[stack.path]}
        for stack in request.teacher.stacks
    )


def _swap(request: Request, stacks: Spans, draws: random.Random) -> Spans | None:
    """The plan after one swap drawn at random, or None where that kind of swap does not fit."""
    paths = [path for path, spans in stacks.items() if spans]
    path = draws.choices(paths, [len(stacks[p]) for p in paths])[0]
    kinds: list[Callable[[Request, str, list[Span], random.Random], list[Span] | None]] = [
        _boundary,
        _exchange,
        _split_and_join,
        _reshape,
    ]
    new = draws.choice(kinds)(request, path, list(stacks[path]), draws)
    return {**stacks, path: new} if new is not None and new != stacks[path] else None


def _boundary(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """A boundary moves by one block."""
    if len(spans) < 2:
        return None
    at, by = draws.randrange(len(spans) - 1), draws.choice((-1, 1))
    one, two = spans[at], spans[at + 1]
    if not one.first <= one.last + by < two.last:
        return None
    left = _shaped(request, path, one, (one.first, one.last + by), draws)
    right = _shaped(request, path, two, (two.first + by, two.last), draws)
    return [*spans[:at], left, right, *spans[at + 2 :]]


def _split_and_join(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """One span becomes two, two others become one."""
    long = [i for i, span in enumerate(spans) if len(span) > 1]
    pairs = [i for i in range(len(spans) - 1)]
    if not long or not pairs:
        return None
    split, join = draws.choice(long), draws.choice(pairs)
    if split in (join, join + 1):
        return None
    span, cut = spans[split], draws.randrange(spans[split].first + 1, spans[split].last + 1)
    halves = [
        _shaped(request, path, span, (span.first, cut - 1), draws),
        _shaped(request, path, span, (cut, span.last), draws),
    ]
    joined = [_shaped(request, path, spans[join], (spans[join].first, spans[join + 1].last), draws)]
    out: list[Span] = []
    for i, old in enumerate(spans):
        out += halves if i == split else joined if i == join else [] if i == join + 1 else [old]
    return out


def _reshape(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """A span of several blocks starts otherwise."""
    long = [i for i, span in enumerate(spans) if len(span) > 1]
    if not long:
        return None
    at = draws.choice(long)
    return [
        *spans[:at],
        _shaped(request, path, spans[at], spans[at].blocks, draws),
        *spans[at + 1 :],
    ]


def _exchange(
    request: Request, path: str, spans: list[Span], draws: random.Random
) -> list[Span] | None:
    """Two blocks exchange stream and dropped parts."""
    edited = [i for i, span in enumerate(spans) if span.stream or span.drop]
    if not edited:
        return None
    one, two = draws.choice(edited), draws.randrange(len(spans))
    a, b = spans[one], spans[two]
    spans[one] = a.model_copy(update={"stream": b.stream, "drop": b.drop})
    spans[two] = b.model_copy(update={"stream": a.stream, "drop": a.drop})
    return spans


def _shaped(
    request: Request, path: str, span: Span, blocks: tuple[int, int], draws: random.Random
) -> Span:
    """The span over these blocks with an init and gain drawn from those allowed."""
    if blocks[0] == blocks[1]:
        return span.model_copy(update={"blocks": blocks, "init": "first", "gain": 1.0})
    choices: Iterator[tuple[str, float]] = shapes(request, request.teacher.stack(path), *blocks)
    init, gain = draws.choice(list(choices))
    return span.model_copy(update={"blocks": blocks, "init": init, "gain": gain})
