"""The rank of modulation of the selected student blocks: what can be chosen, and what a choice does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...families import StackRow
from ...records import BadInput, Modulation, Plan, Span, StackInfo, Teacher
from ..check import no_modulation
from ..modulation import can_factor, most_rank_of
from ..spans import family_of

RANKS = (4, 8, 16, 32, 64)
KEEP = "keep"
PLAN = "plan"

SelectedBlocks = Mapping[str, Iterable[int]]  # stack path -> numbers of student blocks
Placed = tuple[Span, StackInfo, StackRow]


def choices(plan: Plan, teacher: Teacher, selected: SelectedBlocks) -> tuple[tuple[str, str], ...]:
    """Labels and values: the plan's default, as in the teacher, and ranks that every selected block
    with modulation linears can have; ranks that the blocks have now are among them.
    """
    default = "unchanged"
    if plan.modulation is not None:
        default = f"rank {plan.modulation.rank}"
    most = [most_rank_of(*placed) for placed in able(plan, teacher, selected)]
    ranks = {rank for rank in RANKS if rank <= min(most, default=0)}
    ranks |= {span.rank for span, _, _ in placed_spans(plan, teacher, selected) if span.rank}
    offered = [(f"rank {rank}", str(rank)) for rank in sorted(ranks)]
    return (f"plan default ({default})", PLAN), (KEEP, KEEP), *offered


def chosen(span: Span, default: Modulation | None) -> str:
    """The value of `choices` that a student block has now."""
    if span.modulation == default:
        return PLAN
    return str(span.rank) if span.rank else KEEP


def refusal(plan: Plan, teacher: Teacher, selected: SelectedBlocks) -> str:
    """Why none of the selected blocks can have its modulation in two factors; empty where one can,
    or nothing is selected.
    """
    reason = ""
    family = family_of(teacher)
    for span, stack, row in placed_spans(plan, teacher, selected):
        if can_factor(span, stack, row) and family.conditioning is not None:
            return ""
        reason = no_modulation(span, stack, row, family) or "the block is pinned in this family"
    return reason


def check_choice(value: str, plan: Plan, teacher: Teacher, selected: SelectedBlocks) -> None:
    """Raises BadInput for a value that is not a choice, or a rank that no selected block can have."""
    if value not in (KEEP, PLAN) and not (value.isdecimal() and int(value) > 0):
        raise BadInput(f"modulation {value!r}", "keep, plan or a rank", "choose one")
    reason = refusal(plan, teacher, selected)
    if value != KEEP and reason:
        raise BadInput(f"modulation {value!r} of the selected blocks", f"none: {reason}", "keep it")


def with_choice(
    new: Span,
    old: Span,
    value: str | None,
    default: Modulation | None,
    stack: StackInfo,
    row: StackRow,
) -> Span:
    """A changed student block with the modulation chosen for it; None leaves what it has. A block
    that loses its modulation linears has no rank left, and one that gets them back follows the plan.
    """
    if not can_factor(new, stack, row):
        return new.model_copy(update={"modulation": KEEP}) if new.rank else new
    if value is None and old.modulation == KEEP and not can_factor(old, stack, row):
        value = PLAN
    if value is None:
        return new
    modulation: Modulation | str | None = default
    if value == KEEP:
        modulation = KEEP
    elif value != PLAN:
        modulation = Modulation(rank=int(value))
    return new.model_copy(update={"modulation": modulation})


def able(plan: Plan, teacher: Teacher, selected: SelectedBlocks) -> Iterator[Placed]:
    """The selected student blocks that have modulation linears and may be changed."""
    for placed in placed_spans(plan, teacher, selected):
        if can_factor(*placed):
            yield placed


def placed_spans(plan: Plan, teacher: Teacher, selected: SelectedBlocks) -> Iterator[Placed]:
    """The selected student blocks with their stacks."""
    family = family_of(teacher)
    for path, numbers in selected.items():
        stack = teacher.stack(path)
        row = family.stack(path)
        for number in sorted(numbers):
            yield plan.stacks[path][number], stack, row
