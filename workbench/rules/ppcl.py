"""PPCL (arXiv 2511.16156, CVPR 2026): contiguous intervals of redundant blocks, found by CKA, each
replaced by one block.

The map's `cka` rows hold cka(u, k): how alike the state after block k stays when blocks u..k are
replaced by linear probes (higher = easier to replace). delta(u, k) = -(cka(u, k) - cka(u, k - 1))
is what block k adds to the damage. From u the interval grows while delta falls, and ends before it
rises: redundant blocks in a row cost less and less, then a block that matters costs more. The first
delta, of k = u + 1, has none before it to rise from. The paper's code has intervals, but no search;
what follows is ours: intervals are taken in order of least damage 1 - cka per block saved, block by
block, until the budget is met; where all of them do not meet it, neighbouring spans join, the pair
with the highest cka first. Starts from the interval's MIDDLE block, as the released code does (the
paper says the first).
"""

from __future__ import annotations

import math

from ..plans import spans_of
from ..records import BadInput, Span, StackInfo
from .base import Proposal, Request, Rule, Spans

Cka = dict[tuple[int, int], float]  # (first, last) of a span -> its CKA


def propose(request: Request) -> Proposal:
    """Take intervals, then join neighbours, until the budget is met."""
    tables = {stack.path: cka(request, stack) for stack in request.teacher.stacks}
    cuts = Cuts(request)
    for path, first, last in intervals_by_damage(request, tables):
        for block in range(first + 1, last + 1):
            if request.excess(cuts.spans()) and cuts.may_lose(path):
                cuts.starts[path].discard(block)
    while request.excess(cuts.spans()):
        path, block = best_join(request, cuts, tables)
        cuts.starts[path].discard(block)
    stacks = cuts.spans()
    why = {}
    for path, spans in stacks.items():
        why[path] = [reason(span, tables[path]) for span in spans]
    return Proposal(stacks, why)


class Cuts:
    """Where the spans of each stack begin; at first at every block."""

    def __init__(self, request: Request) -> None:
        self.stacks = request.teacher.stacks
        self.keep = request.budget.keep
        self.starts = {stack.path: set(range(stack.depth)) for stack in self.stacks}

    def spans(self) -> Spans:
        """The spans between the cuts."""
        return {stack.path: spans_of(stack.depth, self.starts[stack.path]) for stack in self.stacks}

    def may_lose(self, path: str) -> bool:
        """Whether a stack may have one span less."""
        if self.keep is None:
            return True
        count = len(self.starts[path])
        return count > self.keep.get(path, count)


def intervals_by_damage(request: Request, tables: dict[str, Cka]) -> list[tuple[str, int, int]]:
    """(stack, first, last) of the intervals of several blocks, least damage per block saved first."""
    order = []
    for stack in request.teacher.stacks:
        table = tables[stack.path]
        for first, last in intervals(table, stack.depth, request.walls(stack)):
            if last > first:
                damage = (1 - table[first, last]) / (last - first)
                order.append((damage, stack.path, first, last))
    return [(path, first, last) for _, path, first, last in sorted(order)]


def best_join(request: Request, cuts: Cuts, tables: dict[str, Cka]) -> tuple[str, int]:
    """(stack, block): the start of a span to join with the one before, of highest CKA together.

    Raises BadInput where no two spans may join.
    """
    joins = []
    for stack in request.teacher.stacks:
        if not cuts.may_lose(stack.path):
            continue
        walls = request.walls(stack)
        bounds = [*sorted(cuts.starts[stack.path]), stack.depth]
        for first, block, end in zip(bounds, bounds[1:], bounds[2:], strict=False):
            if block not in walls:
                joins.append((-tables[stack.path].get((first, end - 1), 0.0), stack.path, block))
    if not joins:
        raise BadInput(
            "all blocks that are not protected are joined, and the plan is still over the budget",
            "a larger budget",
            "raise it, or protect fewer blocks",
        )
    _, path, block = min(joins)
    return path, block


def cka(request: Request, stack: StackInfo) -> Cka:
    """CKA of the stack's spans, from the map. Raises BadInput for a block where no span begins."""
    assert request.sensitivity is not None
    table: Cka = {}
    for row in request.sensitivity.rows:
        if row.stack == stack.path and row.edit == "span":
            last = row.block if row.last is None else row.last
            table[row.block, last] = row.score
    for block in range(stack.depth):
        if (block, block) not in table:
            raise BadInput(
                f"a map without a span of {stack.path} that begins at block {block}",
                "cka of spans from every block",
                "run `workbench profile --metric cka`",
            )
    return table


def intervals(table: Cka, depth: int, walls: set[int]) -> list[tuple[int, int]]:
    """(first, last) from left to right: grown while delta falls; a wall is always a beginning."""
    out = []
    first = 0
    while first < depth:
        last = first
        before = math.inf
        while last + 1 < depth and last + 1 not in walls and (first, last + 1) in table:
            delta = table[first, last] - table[first, last + 1]
            if delta > before:
                break
            before = delta
            last += 1
        out.append((first, last))
        first = last + 1
    return out


def reason(span: Span, table: Cka) -> str:
    """Why a span is as it is."""
    if len(span) == 1:
        return f"alone: cka {table[span.first, span.first]:.3f} when replaced"
    alike = table.get((span.first, span.last), math.nan)
    return f"one interval: cka {alike:.3f} when blocks {span.first}-{span.last} are replaced"


RULE = Rule(
    propose,
    title="PPCL",
    paper="2511.16156",
    about="Finds intervals of consecutive blocks that linear probes can replace (CKA) and keeps the "
    "middle block of each.",
    init="middle",
    metric="cka",
    only_metric=True,
    meets_budgets=True,
)
