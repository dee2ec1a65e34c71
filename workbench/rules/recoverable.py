"""Recoverable: the partition that training repairs best, by a map of what one block in place of
each span comes to after training.

Ours. The motive is TinyFusion's (arXiv 2412.01199): what a student is before training does not tell
what it will be after it, so choose by recoverability. The map (metric `recovery`) has a score for
every span of a few blocks, each trained and measured alone, as Puzzle (arXiv 2411.19146) scores its
blocks; like Puzzle, the rule takes the errors of single replacements to add up. Of all partitions
into so many spans it finds the one with the least sum, exactly, by dynamic programming over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from .. import plans
from ..records import BadInput, Init, SensitivityMap, Span, StackInfo
from .base import Proposal, Request, Spans

Costs = Mapping[tuple[int, int], float]  # (first, last) -> what one block for them comes to
Cuts = dict[int, tuple[float, list[tuple[int, int]]]]  # number of spans -> least sum, and the spans
Shapes = Mapping[tuple[str, int, int], tuple[Init, float]]


def propose(request: Request) -> Proposal:
    measured = request.sensitivity
    assert measured is not None
    stacks = request.teacher.stacks
    scores = plans.span_scores(measured, "recovered", request.weighting)
    if not scores:
        raise BadInput(
            "the map has no rows of edit 'recovered'",
            "a map of spans that were trained",
            "run `workbench profile --metric recovery`",
        )
    best = {
        s.path: partitions(
            {(u, k): value for (path, u, k), value in scores.items() if path == s.path},
            s.depth,
            request.walls(s),
        )
        for s in stacks
    }
    started = shapes(measured)

    def spans(counts: Sequence[int]) -> Spans:
        return {
            s.path: [shaped(request, s.path, u, k, started) for u, k in best[s.path][count][1]]
            for s, count in zip(stacks, counts, strict=True)
        }

    able = [fitting(request, s, best[s.path]) for s in stacks]
    chosen = cheapest(request, able, [best[s.path] for s in stacks], spans)
    return Proposal(
        spans(chosen), {path: reasons(measured, path, of) for path, of in spans(chosen).items()}
    )


def partitions(costs: Costs, depth: int, walls: set[int]) -> Cuts:
    """For every possible number of spans the partition of blocks 0..depth-1 with the least sum of
    costs; single blocks cost 0.

    A span of several blocks must have a cost, and no block of `walls` behind its first. Equal sums:
    the partition whose first difference, from the end, is the shorter span.
    """
    least = [[math.inf] * (depth + 1) for _ in range(depth + 1)]  # [blocks covered][spans]
    begin = [[0] * (depth + 1) for _ in range(depth + 1)]
    least[0][0] = 0.0
    for end in range(1, depth + 1):
        for first in range(end - 1, -1, -1):
            cost = 0.0 if first == end - 1 else costs.get((first, end - 1), math.inf)
            if cost < math.inf:
                for count in range(1, end + 1):
                    if least[first][count - 1] + cost < least[end][count]:
                        least[end][count], begin[end][count] = least[first][count - 1] + cost, first
            if first in walls:
                break
    return {
        count: (least[depth][count], _traced(begin, depth, count))
        for count in range(1, depth + 1)
        if least[depth][count] < math.inf
    }


def _traced(begin: list[list[int]], depth: int, count: int) -> list[tuple[int, int]]:
    found, end = [], depth
    for left in range(count, 0, -1):
        found.append((begin[end][left], end - 1))
        end = begin[end][left]
    return found[::-1]


def fitting(request: Request, stack: StackInfo, best: Cuts) -> list[int]:
    """How many spans a stack may have: as many as were asked for; with another budget at most so
    many. Fewest first.
    """
    asked = (request.budget.keep or {}).get(stack.path)
    alone = request.budget.params is request.budget.bytes is request.budget.latency is None
    wanted = stack.depth if asked is None else asked
    found = (
        [count for count in sorted(best) if count == wanted]
        if alone
        else [count for count in sorted(best) if count <= wanted]
    )
    if not found:
        longest = max((k - u + 1 for _, spans in best.values() for u, k in spans), default=1)
        raise BadInput(
            f"keep {wanted} blocks of {stack.path} with a map of spans of at most {longest} blocks",
            f"at least {min(best)} with these protected blocks",
            "profile with a larger --longest, or keep more",
        )
    return found


def cheapest(
    request: Request,
    able: Sequence[Sequence[int]],
    best: Sequence[Cuts],
    spans: Callable[[Sequence[int]], Spans],
) -> tuple[int, ...]:
    """The numbers of spans per stack within the budget with the least sum of costs; of equal ones
    the most blocks.
    """
    found: list[tuple[float, int, tuple[int, ...]]] = []
    for others in product(*able[:-1]):
        # how many of the last stack's numbers, fewest first, are within the budget
        low, high = 0, len(able[-1])
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (low, middle)
                if request.excess(spans((*others, able[-1][middle])))
                else (middle + 1, high)
            )
        for count in able[-1][:low]:
            counts = (*others, count)
            found.append(
                (
                    sum(cuts[n][0] for cuts, n in zip(best, counts, strict=True)),
                    -sum(counts),
                    counts,
                )
            )
    if not found:
        raise BadInput(
            f"budget {request.budget.told()} with a map of short spans",
            "a map of longer spans, or a larger budget",
            "profile with a larger --longest, or raise --budget",
        )
    return min(found)[2]


def shapes(measured: SensitivityMap) -> Shapes:
    """(stack, first, last) -> init and gain with which the map's candidates started."""
    return {
        (row["stack"], row["first"], row["last"]): (row["init"], float(row["gain"]))
        for row in measured.measured.get("shapes") or []
    }


def shaped(request: Request, path: str, first: int, last: int, started: Shapes) -> Span:
    """A span with the map's init and gain, unless a person set them; single blocks stay as they
    are.
    """
    if first == last:
        return Span(blocks=(first, first))
    init, gain = started.get((path, first, last), ("first", 1.0))
    asked = request.gain
    factor = (
        gain if asked is None else float(last - first + 1) if asked == "length" else float(asked)
    )
    return Span(blocks=(first, last), init=request.init or init, gain=factor)


def reasons(measured: SensitivityMap, path: str, spans: Sequence[Span]) -> list[str]:
    """What one block for each span came to, before and after training; means over the timesteps."""
    before, after = (
        plans.span_scores(measured, edit, "uniform") for edit in ("zero-shot", "recovered")
    )
    steps = (measured.measured.get("training") or {}).get("steps", "some")
    out = []
    for span in spans:
        key = (path, span.first, span.last)
        out.append(
            ""
            if len(span) == 1
            else f"one block for {span.first}-{span.last}: "
            f"{before.get(key, math.nan):.3g} -> "
            f"{after[key]:.3g} after {steps} steps"
        )
    return out
