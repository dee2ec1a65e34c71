"""Spans of a stack from a few numbers: every block, even cuts, the blocks to keep."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from ..families import FAMILIES, Family
from ..records import BadInput, Plan, Span, Teacher


def family_of(teacher: Teacher) -> Family:
    """The row of a teacher's family. Raises BadInput for an unknown one."""
    try:
        return FAMILIES[teacher.family]
    except KeyError:
        raise BadInput(
            f"family {teacher.family!r}", "one of " + ", ".join(FAMILIES), "use a known family"
        ) from None


def identity(teacher: Teacher) -> Plan:
    """The plan that keeps every block."""
    return Plan(
        teacher=teacher.name,
        family=teacher.family,
        origin={"rule": "identity"},
        stacks={stack.path: spans_of(stack.depth, range(stack.depth)) for stack in teacher.stacks},
    )


def spans_of(depth: int, starts: Iterable[int]) -> list[Span]:
    """Contiguous spans that begin at the given blocks; the first must be 0."""
    cuts = [*sorted(set(starts)), depth]
    return [Span(blocks=(first, following - 1)) for first, following in pairwise(cuts)]


def spans_of_kept(depth: int, kept: Iterable[int], path: str = "the stack") -> list[Span]:
    """One span per kept block: the block and the dropped run after it, init first.

    Where blocks before the first kept one are dropped, spans reach backwards instead (init last)
    up to the first kept block with no dropped run after it; from there on they reach forwards.
    Raises BadInput where no partition does that: one kept block with dropped blocks on both sides.
    """
    order = sorted(set(kept))
    if not order:
        raise BadInput(f"no block of {path} is kept", "at least one kept block", "keep a block")
    backward = _reaching_backwards(order, depth, path)
    spans = []
    start = 0
    for block in order[:backward]:
        spans.append(Span(blocks=(start, block), init="last" if start < block else "first"))
        start = block + 1
    for block, following in pairwise([*order[backward:], depth]):
        spans.append(Span(blocks=(block, following - 1)))
    return spans


def _reaching_backwards(order: list[int], depth: int, path: str) -> int:
    """How many of the kept blocks, from the first on, take in the dropped run before them: up to
    the first one behind which no block is dropped, so that the next span begins at a kept block.
    """
    if order[0] == 0:
        return 0
    for count, (block, next_kept) in enumerate(pairwise([*order, depth]), 1):
        if next_kept == block + 1:
            return count
    raise BadInput(
        f"{path}: blocks are dropped before block {order[0]} and after block {order[-1]}, "
        "and no two kept blocks are neighbours",
        "a contiguous span for every kept block",
        "keep block 0 or the last block",
    )
