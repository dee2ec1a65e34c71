"""Recoverable spans: choose the partition with the lowest error after distillation, from a map of
per-span distilled errors.

Ours. The motive is TinyFusion's (arXiv 2412.01199): the error of a student before training does not
tell its error after it, so choose by recoverability. The map (metric `recovery`) has a score for
every span of a few blocks, each trained and measured alone, as Puzzle (arXiv 2411.19146) scores its
blocks; like Puzzle, the rule takes the errors of single replacements to add up. Of all partitions
into so many spans it finds the one with the least sum, exactly, by dynamic programming over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from ..plans import gain_for, span_scores
from ..records import BadInput, Init, SensitivityMap, Span, StackInfo
from .base import Proposal, Request, Rule, Spans
from .settings import COMMON

Costs = Mapping[tuple[int, int], float]  # (first, last) -> error of one block in their place
Starts = Mapping[tuple[str, int, int], tuple[Init, float]]  # (stack, first, last) -> init, gain
Counts = tuple[int, ...]  # number of spans of each stack


class Partition(NamedTuple):
    """A partition of a stack: (first, last) of its spans, and the sum of their costs."""

    cost: float
    spans: tuple[tuple[int, int], ...]

    @property
    def longest(self) -> int:
        """Blocks of the longest span."""
        return max(last - first + 1 for first, last in self.spans)


Partitions = dict[int, Partition]  # number of spans -> the cheapest partition


def propose(request: Request) -> Proposal:
    """The partitions of least summed error that meet the budget."""
    measured = request.sensitivity
    assert measured is not None
    stacks = request.teacher.stacks
    costs = span_costs(request, measured)
    best = [partitions(costs[s.path], s.depth, request.walls(s)) for s in stacks]
    starts = measured_starts(measured)

    def spans_of(counts: Counts) -> Spans:
        out = {}
        for stack, of_stack, count in zip(stacks, best, counts, strict=True):
            spans = of_stack[count].spans
            out[stack.path] = [shaped(request, stack.path, span, starts) for span in spans]
        return out

    possible = [possible_counts(request, s, of) for s, of in zip(stacks, best, strict=True)]
    chosen = spans_of(cheapest(request, possible, best, spans_of))
    return Proposal(chosen, {path: reasons(measured, path, of) for path, of in chosen.items()})


def span_costs(request: Request, measured: SensitivityMap) -> dict[str, Costs]:
    """Stack -> error of one block in place of each span, after training."""
    scores = span_scores(measured, "recovered", request.timestep_weight)
    if not scores:
        raise BadInput(
            "a map without rows of edit 'recovered'",
            "a map of spans that were trained",
            "run `workbench profile --metric recovery`",
        )
    costs: dict[str, dict[tuple[int, int], float]] = {s.path: {} for s in request.teacher.stacks}
    for (path, first, last), score in scores.items():
        costs.setdefault(path, {})[first, last] = score
    return dict(costs)


def partitions(costs: Costs, depth: int, walls: set[int]) -> Partitions:
    """For every possible number of spans the partition of blocks 0..depth-1 with the least sum of
    costs; single blocks cost 0.

    A span of several blocks must have a cost, and no block of `walls` behind its first. Equal sums:
    the partition whose first difference, from the end, is the shorter span.
    """
    least = [[math.inf] * (depth + 1) for _ in range(depth + 1)]  # [blocks covered][spans]
    begin = [[0] * (depth + 1) for _ in range(depth + 1)]  # first block of the last span
    least[0][0] = 0.0
    for end in range(1, depth + 1):
        for first in range(end - 1, -1, -1):
            cost = 0.0 if first == end - 1 else costs.get((first, end - 1), math.inf)
            for count in range(1, end + 1):
                total = least[first][count - 1] + cost
                if total < least[end][count]:
                    least[end][count] = total
                    begin[end][count] = first
            if first in walls:
                break
    out: Partitions = {}
    for count in range(1, depth + 1):
        if least[depth][count] < math.inf:
            out[count] = Partition(least[depth][count], _traced(begin, depth, count))
    return out


def _traced(begin: list[list[int]], depth: int, count: int) -> tuple[tuple[int, int], ...]:
    """The spans of a partition, followed back from the last one."""
    spans = []
    end = depth
    for left in range(count, 0, -1):
        first = begin[end][left]
        spans.append((first, end - 1))
        end = first
    return tuple(reversed(spans))


def possible_counts(request: Request, stack: StackInfo, best: Partitions) -> list[int]:
    """How many spans a stack may have, fewest first: the number to keep; with another budget at
    most so many.
    """
    keep = (request.budget.keep or {}).get(stack.path, stack.depth)
    counts = [count for count in sorted(best) if count <= keep]
    if request.budget.counts_blocks_alone:
        counts = [count for count in counts if count == keep]
    if not counts:
        longest = max((partition.longest for partition in best.values()), default=1)
        raise BadInput(
            f"keep {keep} blocks of {stack.path} with a map of spans of at most {longest} blocks",
            f"at least {min(best)} with these protected blocks",
            "profile with a larger --longest, or keep more",
        )
    return counts


def cheapest(
    request: Request,
    possible: Sequence[Sequence[int]],
    best: Sequence[Partitions],
    spans_of: Callable[[Counts], Spans],
) -> Counts:
    """The numbers of spans per stack within the budget with the least sum of costs; of equal ones
    the most blocks. Raises BadInput where none are within the budget.
    """
    within: list[tuple[float, int, Counts]] = []
    for others in product(*possible[:-1]):
        for count in counts_within(request, others, possible[-1], spans_of):
            counts = (*others, count)
            cost = sum(of[number].cost for of, number in zip(best, counts, strict=True))
            within.append((cost, -sum(counts), counts))
    if not within:
        raise BadInput(
            f"budget {request.budget} with a map of short spans",
            "a map of longer spans, or a larger budget",
            "profile with a larger --longest, or raise --budget",
        )
    return min(within)[2]


def counts_within(
    request: Request, others: Counts, counts: Sequence[int], spans_of: Callable[[Counts], Spans]
) -> Sequence[int]:
    """The numbers of spans of the last stack, of those given fewest first, that are within the
    budget when the other stacks have `others`. More spans cost more, so a bisection finds them.
    """
    low = 0
    high = len(counts)
    while low < high:
        middle = (low + high) // 2
        if request.excess(spans_of((*others, counts[middle]))):
            high = middle
        else:
            low = middle + 1
    return counts[:low]


def measured_starts(measured: SensitivityMap) -> Starts:
    """Init and gain with which the map's spans started before they were trained."""
    starts = {}
    for row in measured.measured.get("shapes") or []:
        starts[row["stack"], row["first"], row["last"]] = (row["init"], float(row["gain"]))
    return starts


def shaped(request: Request, path: str, blocks: tuple[int, int], starts: Starts) -> Span:
    """A span with the map's init and gain, unless a person set them; single blocks stay as they
    are.
    """
    first, last = blocks
    if first == last:
        return Span(blocks=blocks)
    init, gain = starts.get((path, first, last), ("first", 1.0))
    if request.settings.gain is not None:
        gain = gain_for(request.settings.gain, last - first + 1)
    return Span(blocks=blocks, init=request.settings.init or init, gain=gain)


def reasons(measured: SensitivityMap, path: str, spans: Sequence[Span]) -> list[str]:
    """The error of one block for each span, before and after training; means over timesteps."""
    before = span_scores(measured, "zero-shot", "uniform")
    after = span_scores(measured, "recovered", "uniform")
    training = measured.measured.get("training") or {}
    steps = training.get("steps", "some")
    out = []
    for span in spans:
        if len(span) == 1:
            out.append("")
            continue
        key = (path, span.first, span.last)
        out.append(
            f"one block for {span.first}-{span.last}: {before.get(key, math.nan):.3g} -> "
            f"{after[key]:.3g} after {steps} steps"
        )
    return out


RULE = Rule(
    propose,
    title="Recoverable spans",
    about="Chooses the partition with the lowest error after a short training, from a map that trained "
    "one block in place of every span (metric recovery), because the error before training misleads "
    "(TinyFusion, arXiv 2412.01199). Initialisation and gain are those of the map.",
    options=(*COMMON, "timestep_weight"),
    metric="recovery",
    only_metric=True,
    shapes_spans=True,
    meets_budgets=True,
)
