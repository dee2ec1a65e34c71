"""Greedy: one edit at a time, measured on what is left. Ours; FinerCut (arXiv 2405.18218) goes this
way for language models.

Single-removal scores do not add up, so each round measures what every possible edit would do to the
student so far, and makes the one with the least added error per share of the budget it saves.
Edits: two neighbouring blocks become one (the first's weights, the last's, or their mean, with gain
1 or the length: dropping and averaging are the same step), text and image share weights, a part
goes. What an edit saves beyond the budget does not count. After the first round only the edits that
looked best, and those that the last step made possible, are measured again (`shortlist`); 0
measures all. The same calls give the same plan.

The error before training does not see what training cannot repair: long spans (docs/log.md). With
`longest`, no join makes a span of more blocks unless the number asked for cannot be reached
without, and none leaves a block alone that forces another span to be longer. Nor does it see how
well a start trains (benchmarks/starts.py): with `margin` 2, a span starts otherwise than as its
first block only where that halves the error it adds.

With a number of blocks and another budget, joins alone come first, down to that number, measured on
blocks as they are; then what follows the rule (slim or single-stream blocks) is done, and all edits
go on until the other budget is met too.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import replace

from ..plans import identity
from ..records import BadInput, Progress
from . import edits
from .base import Proposal, Request, Spans, Work, as_it_is
from .budget import Budget
from .edits import Edit

Why = dict[str, list[str]]  # stack -> a reason for each span


def propose(request: Request) -> Work:
    margin = request.options.get("margin")
    if margin is not None and not float(margin) >= 1:
        raise BadInput(f"margin {margin}", "a factor of 1 or more", "change it, or leave it out")
    stacks: Spans = dict((request.start or identity(request.teacher)).stacks)
    why: Why = {path: [""] * len(spans) for path, spans in stacks.items()}
    only_keep = Budget(keep=request.budget.keep, tokens=request.budget.tokens)
    if request.budget.keep is not None and request.budget != only_keep:
        blocks = replace(
            request, budget=only_keep, finish=as_it_is, options={**request.options, "edits": "join"}
        )
        stacks, why = yield from walk(blocks, stacks, why, (0, 500))
        request.settle(request.plan(stacks))
        stacks, why = yield from walk(request, stacks, why, (500, 1000))
    else:
        stacks, why = yield from walk(request, stacks, why, (0, 1000))
    return Proposal(
        stacks,
        {path: [w or "kept: every edit of it costs more" for w in of] for path, of in why.items()},
    )


def walk(
    request: Request, stacks: Spans, why: Why, bar: tuple[int, int]
) -> Generator[Progress, None, tuple[Spans, Why]]:
    """Edit after edit until the budget is met; the spans, and why each is as it is. `bar`: of 1000,
    from and to.
    """
    assert request.measure is not None
    error, total, began = (
        request.measure(request.plan(stacks)),
        request.excess(stacks),
        time.monotonic(),
    )
    seen: dict[str, float] = {}  # edit -> cost when last measured
    count = 0

    def told(text: str) -> Progress:
        done = 1 - request.excess(stacks) / total if total else 1.0
        return Progress(
            step=round(bar[0] + (bar[1] - bar[0]) * done),
            total=1000,
            message=text,
            metrics={"error": error, "plans": count, "seconds": time.monotonic() - began},
        )

    while over := request.excess(stacks):
        request.settle(request.plan(stacks))
        saving = [
            (e, s)
            for e in edits.possible(request, stacks)
            if (s := over - request.excess(e.made(stacks))) > 1e-12
        ]
        saving = within(request, stacks, saving, int(request.options.get("longest") or 0))
        best: tuple[tuple[float, float], float, Edit] | None = None
        for edit, saved in shortlisted(saving, seen, int(request.options.get("shortlist", 16))):
            now = request.measure(request.plan(edit.made(stacks)))
            cost = doubted(request, edit, now - error) / saved
            seen[edit.key], count = cost, count + 1
            rank = (cost, -saved)  # of two that cost nothing the one that saves more
            best = (rank, now, edit) if best is None or rank < best[0] else best
            yield told(f"{edit.path}: {edit.about}, error {now:.4g}")
        if best is None:
            raise BadInput(
                f"the budget is not met when no edit is left, {over:.3f} of the teacher over",
                "a larger budget",
                "raise it, allow more --edits, or protect fewer blocks",
            )
        _, now, edit = best
        text = f"error {error:.4g} -> {now:.4g}, the least per saving of {len(saving)} edits"
        text = text if edit.count > 1 else f"{edit.about}: {text}"
        former = [
            w for w in why[edit.path][edit.at : edit.at + edit.count] if w and edit.count == 1
        ]
        why[edit.path][edit.at : edit.at + edit.count] = ["; ".join([*former, text])]
        stacks, error = edit.made(stacks), now
        yield told(text)
    return stacks, why


def doubted(request: Request, edit: Edit, added: float) -> float:
    """The error an edit adds; `margin` times that where it chose another start than the span's
    first block as it is.
    """
    span = edit.spans[0]
    plain = span.init == "first" and (request.gain is not None or span.gain == 1)
    chosen = edit.count > 1 and request.init is None and not plain
    return added * float(request.options.get("margin") or 1) if chosen and added > 0 else added


def within(
    request: Request, stacks: Spans, saving: list[tuple[Edit, float]], longest: int
) -> list[tuple[Edit, float]]:
    """Without joins of more than `longest` blocks, and without those after which the number of
    blocks asked for is out of their reach. Where it is anyway, or nothing else is left to join,
    spans may be longer, by as little as possible. 0: all as they are."""
    if not longest:
        return saving
    shortest = min((len(edit.spans[0]) for edit, _ in saving if edit.count > 1), default=0)
    deepest = max(stack.depth for stack in request.teacher.stacks)
    limit = next(
        n
        for n in range(max(longest, shortest), deepest + 1)
        if n == deepest or reached(request, stacks, n)
    )
    even = [
        (edit, saved) for edit, saved in saving if edit.count == 1 or len(edit.spans[0]) <= limit
    ]
    return [
        (edit, saved)
        for edit, saved in even
        if edit.count == 1 or reached(request, edit.made(stacks), limit)
    ] or even


def reached(request: Request, stacks: Spans, longest: int) -> bool:
    """Whether joins of up to `longest` blocks come down to the number of blocks asked for: packed
    from the first span on.
    """
    for stack in request.teacher.stacks:
        walls, count, length = request.walls(stack), 0, longest + 1
        for span in stacks[stack.path]:
            joins = length + len(span) <= longest and span.first not in walls
            count, length = (count, length + len(span)) if joins else (count + 1, len(span))
        if count > (request.budget.keep or {}).get(stack.path, count):
            return False
    return True


def shortlisted(
    saving: Iterable[tuple[Edit, float]], seen: dict[str, float], size: int
) -> list[tuple[Edit, float]]:
    """Edits never measured, and the `size` best of the others by what they cost then."""
    fresh: list[tuple[Edit, float]] = []
    known: list[tuple[Edit, float]] = []
    for edit, saved in saving:
        (known if edit.key in seen else fresh).append((edit, saved))
    known.sort(key=lambda item: seen[item[0].key])
    return fresh + (known[:size] if size else known)
