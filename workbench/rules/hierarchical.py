"""HierarchicalPrune (arXiv 2508.04663, AAAI 2026): position weight times contribution; whole blocks
first, then parts of blocks.

The paper prints Score(i, c) = -|dP(i, c)| W_pos(i) with W_pos(i) = exp((i - |B|) / |B|) and prunes
the highest score first. W_pos rises with depth, so at equal contribution the printed formula prunes
EARLY blocks, against the paper's own claim that early blocks make the layout and must stay. Its
release holds no W_pos. We keep the claim: importance = |dP(i, c)| / W_pos(i), the lowest goes
first, so that at equal contribution the deeper block goes and block 0 weighs e times the last one.

|dP| is the score of the map, of any metric (theirs: the drop of HPSv2 of finished pictures): `drop`
rows for blocks, `drop:<part>` rows for parts. With a budget, blocks go while that does not
overshoot it, then parts until it is met; with --keep beside the budget, blocks go down to that
depth; with --keep alone there are no part drops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..families import StackRow
from ..plans import family_of, spans_of_kept
from ..records import BadInput, Span, StackInfo
from .base import Proposal, Request, Scores, Spans


def importance(contribution: float, block: int, depth: int) -> float:
    """|dP| / W_pos: higher = keep, more so for early blocks."""
    return abs(contribution) * math.exp((depth - block) / depth)


def propose(request: Request) -> Proposal:
    depths = {s.path: s.depth for s in request.teacher.stacks}
    listed = (
        request.start is not None
        and request.sensitivity is not None
        and "drop" not in request.sensitivity.edits
    )
    scores = {
        key: importance(value, key[1], depths[key[0]])
        for key, value in ({} if listed else request.block_scores()).items()
    }
    if request.start is not None:  # whole blocks are chosen already: a released list
        found = dict(request.start.stacks)
        kept = {path: {span.source[0] for span in spans} for path, spans in found.items()}
    else:
        kept = _blocks(request, scores)
        found = _spans(request, kept)
    if request.excess(found) and request.options.get("parts", True):
        found = _parts(request, found)
    least = dict.fromkeys(kept, 1)
    # parts were not enough
    while (
        request.excess(found) and not listed and (weakest := _weakest(request, kept, scores, least))
    ):
        kept[weakest[0]].discard(weakest[1])
        found = _carry(request, kept, found)
    if request.excess(found):
        raise BadInput(
            "the budget is not met when nothing is left that may go",
            "a larger budget",
            "raise it, or protect fewer blocks",
        )
    return Proposal(
        found, {path: [_why(span, path, scores) for span in spans] for path, spans in found.items()}
    )


def _blocks(request: Request, scores: Scores) -> dict[str, set[int]]:
    """Blocks that stay: down to the depth asked for, else until the budget is met, leaving the last
    bit to parts if there are any.
    """
    kept = {s.path: set(range(s.depth)) for s in request.teacher.stacks}
    asked = request.budget.keep
    for stack in request.teacher.stacks if asked is not None else []:
        request.fixed(stack)
    parts = (
        request.options.get("parts", True)
        and request.sensitivity is not None
        and any(edit.startswith("drop:") for edit in request.sensitivity.edits)
    )
    while weakest := _weakest(
        request, kept, scores, dict.fromkeys(kept, 1) if asked is None else asked
    ):
        fewer = {**kept, weakest[0]: kept[weakest[0]] - {weakest[1]}}
        met = asked is None and not request.excess(_spans(request, fewer if parts else kept))
        if met:
            break
        kept = fewer
    return kept


def _weakest(
    request: Request, kept: dict[str, set[int]], scores: Scores, least: Mapping[str, int]
) -> tuple[str, int] | None:
    """The least important block that may go, the deeper one of equals; `least`: how many blocks a
    stack keeps.
    """
    free = [
        (s.path, block)
        for s in request.teacher.stacks
        if len(kept[s.path]) > least.get(s.path, s.depth)
        for block in kept[s.path] - request.walls(s)
    ]
    return min(free, key=lambda place: (scores[place], -place[1])) if free else None


def _spans(request: Request, kept: dict[str, set[int]]) -> Spans:
    return {s.path: spans_of_kept(s.depth, kept[s.path], s.path) for s in request.teacher.stacks}


def _carry(request: Request, kept: dict[str, set[int]], former: Spans) -> Spans:
    """Spans over the kept blocks, with the part drops of former spans."""
    drops = {(path, span.source[0]): span.drop for path, spans in former.items() for span in spans}
    return {
        path: [
            span.model_copy(update={"drop": drops.get((path, span.source[0]), ())})
            for span in spans
        ]
        for path, spans in _spans(request, kept).items()
    }


def _parts(request: Request, found: Spans) -> Spans:
    """Parts of the kept blocks, least important first, until the budget is met."""
    assert request.sensitivity is not None
    family, ladder = family_of(request.teacher), []
    for edit in (e for e in request.sensitivity.edits if e.startswith("drop:")):
        for (path, block), score in request.scores(edit).items():
            depth = request.teacher.stack(path).depth
            ladder.append(
                (importance(score, block, depth), -block, path, edit.removeprefix("drop:"))
            )
    for _, minus, path, part in sorted(ladder):
        if not request.excess(found):
            break
        stack = request.teacher.stack(path)
        found = {
            **found,
            path: [
                _without(span, part, -minus, stack, family.stack(path), request)
                for span in found[path]
            ],
        }
    return found


def _without(
    span: Span, part: str, block: int, stack: StackInfo, row: StackRow, request: Request
) -> Span:
    """The span without the part, if it is this block's and the block has it."""
    held = row.fitted(stack.tensors(block)).parts
    alone = request.protect.get(stack.path, frozenset())
    last = part in held and held[part].last_only and span.last != stack.depth - 1
    if (
        block not in span.source
        or len(span.source) > 1
        or part not in held
        or last
        or block in alone
        or part in span.drop
    ):
        return span
    return span.model_copy(update={"drop": (*span.drop, part)})


def _why(span: Span, path: str, scores: Scores) -> str:
    gone = [b for b in range(span.first, span.last + 1) if b not in span.source]

    def told(block: int) -> str:
        return f"{block} ({scores[path, block]:.3g})" if (path, block) in scores else str(block)

    text = (
        f"block {told(span.source[0])} by contribution x position"
        if scores
        else f"block {span.source[0]}, listed"
    )
    text += "; dropped " + ", ".join(map(told, gone)) if gone else ""
    return text + (f"; parts dropped {', '.join(span.drop)}" if span.drop else "")
