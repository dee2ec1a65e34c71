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
from itertools import pairwise

from ..records import BadInput, Span, StackInfo
from .base import Proposal, Request

Cka = dict[tuple[int, int], float]


def propose(request: Request) -> Proposal:
    table = {s.path: cka(request, s) for s in request.teacher.stacks}
    cuts = {s.path: set(range(s.depth)) for s in request.teacher.stacks}  # where spans begin

    def spans() -> dict[str, list[Span]]:
        return {
            s.path: [Span(blocks=(a, b - 1)) for a, b in pairwise([*sorted(cuts[s.path]), s.depth])]
            for s in request.teacher.stacks
        }

    ladder = [
        (loss(table[s.path], u, k) / (k - u), s.path, u, k)
        for s in request.teacher.stacks
        for u, k in intervals(table[s.path], s.depth, request.walls(s))
        if k > u
    ]
    for _, path, u, k in sorted(ladder):
        for block in range(u + 1, k + 1):
            if request.excess(spans()) and _allowed(request, path, spans()[path]):
                cuts[path].discard(block)
    while request.excess(spans()):
        pairs = [
            (-table[s.path].get((a, c - 1), 0.0), s.path, b)
            for s in request.teacher.stacks
            if _allowed(request, s.path, spans()[s.path])
            for a, b, c in zip(
                *(sorted(cuts[s.path] | {s.depth})[i:] for i in range(3)), strict=False
            )
            if b not in request.walls(s)
        ]
        if not pairs:
            raise BadInput(
                "the budget is not met with every free block joined",
                "a larger budget",
                "raise it, or protect fewer blocks",
            )
        _, path, block = min(pairs)
        cuts[path].discard(block)
    found = spans()
    return Proposal(
        found, {path: [_why(span, table[path]) for span in of] for path, of in found.items()}
    )


def _allowed(request: Request, path: str, spans: list[Span]) -> bool:
    """Whether this stack may lose another block."""
    asked = request.budget.keep
    return asked is None or len(spans) > asked.get(path, len(spans))


def cka(request: Request, stack: StackInfo) -> Cka:
    """(u, k) -> CKA of the stack's spans, from the map."""
    assert request.sensitivity is not None
    found = {
        (row.block, row.block if row.last is None else row.last): row.score
        for row in request.sensitivity.rows
        if row.stack == stack.path and row.edit == "span"
    }
    missing = [u for u in range(stack.depth) if (u, u) not in found]
    if missing:
        raise BadInput(
            f"the map has no span of {stack.path} that begins at block {missing[0]}",
            "cka of spans from every block",
            "run `workbench profile --metric cka`",
        )
    return found


def loss(table: Cka, first: int, last: int) -> float:
    return 1 - table[first, last]


def intervals(table: Cka, depth: int, walls: set[int]) -> list[tuple[int, int]]:
    """(u, k) from left to right: grown while delta falls; a wall is always a beginning."""
    found, u = [], 0
    while u < depth:
        k, before = u, math.inf
        while k + 1 < depth and k + 1 not in walls and (u, k + 1) in table:
            delta = table[u, k] - table[u, k + 1]
            if delta > before:
                break
            k, before = k + 1, delta
        found.append((u, k))
        u = k + 1
    return found


def _why(span: Span, table: Cka) -> str:
    if len(span) == 1:
        return f"alone: cka {table[span.first, span.first]:.3f} when replaced"
    return f"one interval: cka {table.get((span.first, span.last), float('nan')):.3f} when blocks {span.first}-{span.last} are replaced"
