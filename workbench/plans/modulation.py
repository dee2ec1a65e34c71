"""Modulation in two factors, for a whole plan (docs/modulation.md)."""

from __future__ import annotations

from collections.abc import Mapping

from ..families import Family, StackRow
from ..records import BadInput, Modulation, Plan, SensitivityMap, Span, StackInfo, Teacher
from .check import modulation_left, most_rank
from .predicted_error import RANK_EDIT
from .spans import family_of

SAVES = "Low-rank modulation saves memory and download, not milliseconds."


def is_factored(plan: Plan) -> bool:
    """Whether the modulation of any student block is in two factors by this plan."""
    return any(span.rank for spans in plan.stacks.values() for span in spans)


def with_modulation(
    plan: Plan,
    teacher: Teacher,
    rank: int,
    protect: Mapping[str, frozenset[int]] | None = None,
) -> Plan:
    """The plan with the modulation of its blocks in two factors of this rank, wherever it can be;
    spans that say something of their own keep it, and so do protected blocks.

    protect: stack -> blocks that stay as they are.

    Raises BadInput where the family has no such modulation, or the rank is too large.
    """
    family = family_of(teacher)
    if family.conditioning is None or not any(row.modulation for row in family.stacks):
        raise BadInput(
            f"modulation of rank {rank} in family {family.name}",
            "a family whose blocks have modulation linears of their own",
            "leave the rank out",
        )
    modulation = Modulation(rank=rank)
    stacks = {}
    for path, spans in plan.stacks.items():
        stack = teacher.stack(path)
        row = family.stack(path)
        stay = (protect or {}).get(path, frozenset())
        stacks[path] = [with_rank(span, stack, row, modulation, stay) for span in spans]
    return plan.model_copy(update={"stacks": stacks, "modulation": modulation})


def with_rank(
    span: Span, stack: StackInfo, row: StackRow, modulation: Modulation, stay: frozenset[int]
) -> Span:
    """The span with this modulation, or with the teacher's where its block cannot have it or is one
    of those that stay.
    """
    if span.modulation is not None:
        return span
    protected = not stay.isdisjoint(range(span.first, span.last + 1))
    if protected or not can_factor(span, stack, row):
        return span.model_copy(update={"modulation": "keep"})
    if modulation.rank > most_rank_of(span, stack, row):
        raise BadInput(
            f"modulation of rank {modulation.rank} in {stack.path}",
            f"a rank of at most {most_rank_of(span, stack, row)}",
            "lower the rank",
        )
    return span.model_copy(update={"modulation": modulation})


def takes_rank(stack: StackInfo, row: StackRow, family: Family, block: int, rank: int) -> bool:
    """Whether a block, alone, can have its modulation in two factors of this rank."""
    span = Span(blocks=(block, block))
    if family.conditioning is None or not can_factor(span, stack, row):
        return False
    return rank <= most_rank_of(span, stack, row)


def can_factor(span: Span, stack: StackInfo, row: StackRow) -> bool:
    """Whether the student block has modulation linears, and may be changed."""
    pinned = row.pinned_in(stack.depth)
    if any(span.first <= block <= span.last for block in pinned):
        return False
    return bool(modulation_left(span, stack, row))


def most_rank_of(span: Span, stack: StackInfo, row: StackRow) -> int:
    layout = stack.tensors(span.source[0])
    return most_rank(layout, row.modulation_in(layout), row)


def smallest_ranks(sensitivity: SensitivityMap, bound: float) -> dict[tuple[str, int], int]:
    """(stack, block) -> the smallest rank among the map's edits `modulation:rank=K` whose score is
    at most `bound` at every timestep; blocks where none is are left out.

    The bound is in the map's unit, lower = stricter.
    """
    worst: dict[tuple[str, int], dict[int, float]] = {}
    for row in sensitivity.rows:
        if row.edit.startswith(RANK_EDIT):
            of_block = worst.setdefault((row.stack, row.block), {})
            rank = int(row.edit.removeprefix(RANK_EDIT))
            of_block[rank] = max(row.score, of_block.get(rank, 0.0))
    ranks = {}
    for place, scores in worst.items():
        enough = [rank for rank, score in scores.items() if score <= bound]
        if enough:
            ranks[place] = min(enough)
    return ranks
