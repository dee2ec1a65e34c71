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
from ..plans.scores import BlockScores
from ..records import BadInput, Span, StackInfo
from .base import Proposal, Request, Rule, Spans, part_edits
from .settings import COMMON

Kept = dict[str, set[int]]  # stack -> teacher blocks that stay


def importance(contribution: float, block: int, depth: int) -> float:
    """|dP| / W_pos: higher = keep, more so for early blocks."""
    return abs(contribution) * math.exp((depth - block) / depth)


def propose(request: Request) -> Proposal:
    """Whole blocks, then parts, least important first, until the budget is met."""
    scores = {} if starts_from_list(request) else block_importance(request)
    if request.start is not None:  # whole blocks are chosen already: a released list
        stacks = dict(request.start.stacks)
        kept = sources(stacks)
    else:
        kept = kept_blocks(request, scores)
        stacks = spans_of(request, kept)
    if drops_parts(request) and request.excess(stacks):
        stacks = without_parts(request, stacks)
    if scores:
        stacks = without_more_blocks(request, scores, kept, stacks)
    if request.excess(stacks):
        raise BadInput(
            "nothing is left to drop, and the plan is still over the budget",
            "a larger budget",
            "raise it, or protect fewer blocks",
        )
    why = {}
    for path, spans in stacks.items():
        why[path] = [reason(span, path, scores) for span in spans]
    return Proposal(stacks, why)


def sources(stacks: Spans) -> Kept:
    """The teacher blocks that the spans start as."""
    kept = {}
    for path, spans in stacks.items():
        kept[path] = {span.source[0] for span in spans}
    return kept


def starts_from_list(request: Request) -> bool:
    """Whether blocks come from a list and the map scores parts alone."""
    if request.start is None or request.sensitivity is None:
        return False
    return "drop" not in request.sensitivity.edits


def drops_parts(request: Request) -> bool:
    """Whether parts may be dropped too."""
    return request.settings.parts is not False


def block_importance(request: Request) -> BlockScores:
    """(stack, block) -> importance, higher = keep."""
    scores = {}
    for (path, block), score in request.block_scores().items():
        scores[path, block] = importance(score, block, request.teacher.stack(path).depth)
    return scores


def kept_blocks(request: Request, scores: BlockScores) -> Kept:
    """The blocks that stay: down to the depth to keep, else until the budget is met, leaving the
    last bit to parts where the map scores them.
    """
    kept = {stack.path: set(range(stack.depth)) for stack in request.teacher.stacks}
    keep = request.budget.keep
    if keep is not None:
        for stack in request.teacher.stacks:
            request.fixed(stack)  # refuses more protected blocks than are kept
        return reduced(request, kept, scores, keep)
    sensitivity = request.sensitivity
    leave_to_parts = (
        drops_parts(request) and sensitivity is not None and bool(part_edits(sensitivity))
    )
    least = dict.fromkeys(kept, 1)
    while (weakest := least_important(request, kept, scores, least)) is not None:
        fewer = without(kept, weakest)
        if not request.excess(spans_of(request, fewer if leave_to_parts else kept)):
            break
        kept = fewer
    return kept


def reduced(request: Request, kept: Kept, scores: BlockScores, keep: Mapping[str, int]) -> Kept:
    """The blocks that stay when each stack goes down to its depth to keep."""
    while (weakest := least_important(request, kept, scores, keep)) is not None:
        kept = without(kept, weakest)
    return kept


def without(kept: Kept, place: tuple[str, int]) -> Kept:
    """The blocks that stay when one of them goes."""
    path, block = place
    return {**kept, path: kept[path] - {block}}


def least_important(
    request: Request, kept: Kept, scores: BlockScores, least: Mapping[str, int]
) -> tuple[str, int] | None:
    """The least important block that may go, the deeper one of equals; None where none may.

    least: stack -> how many blocks it keeps.
    """
    free: list[tuple[str, int]] = []
    for stack in request.teacher.stacks:
        if len(kept[stack.path]) > least.get(stack.path, stack.depth):
            free += [(stack.path, block) for block in kept[stack.path] - request.walls(stack)]
    return min(free, key=lambda place: (scores[place], -place[1]), default=None)


def spans_of(request: Request, kept: Kept) -> Spans:
    """Spans over the kept blocks."""
    return {s.path: spans_of_kept(s.depth, kept[s.path], s.path) for s in request.teacher.stacks}


def without_more_blocks(request: Request, scores: BlockScores, kept: Kept, stacks: Spans) -> Spans:
    """More whole blocks go where parts were not enough; the others keep their part drops."""
    least = dict.fromkeys(kept, 1)
    while request.excess(stacks):
        weakest = least_important(request, kept, scores, least)
        if weakest is None:
            break
        kept = without(kept, weakest)
        stacks = with_drops_of(stacks, spans_of(request, kept))
    return stacks


def with_drops_of(former: Spans, stacks: Spans) -> Spans:
    """The spans with the part drops of the former spans of the same blocks."""
    drops: dict[tuple[str, int], tuple[str, ...]] = {}
    for path, spans in former.items():
        drops |= {(path, span.source[0]): span.drop for span in spans}
    out: Spans = {}
    for path, spans in stacks.items():
        out[path] = [
            span.model_copy(update={"drop": drops.get((path, span.source[0]), ())})
            for span in spans
        ]
    return out


def without_parts(request: Request, stacks: Spans) -> Spans:
    """Parts of the kept blocks go, least important first, until the budget is met."""
    assert request.sensitivity is not None
    family = family_of(request.teacher)
    order: list[tuple[float, int, str, str]] = []  # importance, -block, stack, part
    for edit in part_edits(request.sensitivity):
        for (path, block), score in request.scores(edit).items():
            depth = request.teacher.stack(path).depth
            part = edit.removeprefix("drop:")
            order.append((importance(score, block, depth), -block, path, part))
    for _, minus_block, path, part in sorted(order):
        if not request.excess(stacks):
            break
        stack = request.teacher.stack(path)
        row = family.stack(path)
        smaller = []
        for span in stacks[path]:
            goes = may_drop(request, span, -minus_block, part, stack, row)
            drop = (*span.drop, part) if goes else span.drop
            smaller.append(span.model_copy(update={"drop": drop}))
        stacks = {**stacks, path: smaller}
    return stacks


def may_drop(
    request: Request, span: Span, block: int, part: str, stack: StackInfo, row: StackRow
) -> bool:
    """Whether the span is made of this block alone, which has the part and is not protected."""
    if span.source != (block,) or part in span.drop:
        return False
    if block in request.protect.get(stack.path, frozenset()):
        return False
    parts = row.fitted(stack.tensors(block)).parts
    if part not in parts:
        return False
    return not parts[part].last_only or span.last == stack.depth - 1


def reason(span: Span, path: str, scores: BlockScores) -> str:
    """Why a span is as it is."""
    source = span.source[0]

    def shown(block: int) -> str:
        return f"{block} ({scores[path, block]:.3g})" if (path, block) in scores else str(block)

    text = f"block {source}, listed"
    if scores:
        text = f"block {shown(source)} by contribution x position"
    dropped = [shown(b) for b in range(span.first, span.last + 1) if b not in span.source]
    if dropped:
        text += "; dropped " + ", ".join(dropped)
    if span.drop:
        text += "; parts dropped " + ", ".join(span.drop)
    return text


RULE = Rule(
    propose,
    title="HierarchicalPrune",
    paper="2508.04663",
    about="Drops the blocks with the lowest importance (sensitivity, with more weight on early blocks), "
    "then parts of blocks until the budget is met.",
    options=(*COMMON, "timestep_weight", "parts"),
    metric="prediction",
    timestep_weight="uniform",
    meets_budgets=True,
    keep_and_budget=True,
)
