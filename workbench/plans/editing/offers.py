"""The nearest edits that are possible where one is refused, for buttons beside the refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...records import BadInput, Plan, Span, Teacher
from .marks import edit
from .selection import Selection, checked_selection, run_names, runs

MOST = 3


@dataclass(frozen=True)
class Offer:
    """An edit to press instead. label: in words. selection: stack path -> teacher blocks."""

    label: str
    mark: str
    selection: dict[str, list[int]]


def offers(plan: Plan, teacher: Teacher, selection: Selection, mark: str) -> list[Offer]:
    """Up to three edits near `mark` of the selection that the plan takes; nearest first."""
    result: list[Offer] = []
    for candidate in candidates(plan, teacher, selection, mark):
        if len(result) == MOST:
            break
        if candidate not in result and is_possible(plan, teacher, candidate):
            result.append(candidate)
    return result


def is_possible(plan: Plan, teacher: Teacher, offer: Offer) -> bool:
    """Whether the plan takes the edit, and is another one afterwards."""
    try:
        return edit(plan, teacher, offer.selection, offer.mark).stacks != plan.stacks
    except BadInput:
        return False


def candidates(plan: Plan, teacher: Teacher, selection: Selection, mark: str) -> Iterator[Offer]:
    """Edits to try, nearest first."""
    selected = checked_selection(selection, teacher)
    for path, blocks in selected.items():
        if mark == "drop":
            for group in with_neighbours(plan.stacks[path], blocks):
                yield offer(teacher, "merge", {path: group})
        if mark == "merge" and blocks:
            together = list(range(min(blocks), max(blocks) + 1))
            yield offer(teacher, "merge", {path: together})
        for fewer in without_an_end(blocks):
            yield offer(teacher, mark, {**selected, path: fewer})


def with_neighbours(spans: list[Span], blocks: set[int]) -> Iterator[set[int]]:
    """Each selected run together with what is merged before it, then with what is after it."""
    for run in runs(blocks):
        for span in spans:
            if span.first <= run[0] - 1 <= span.last:
                yield set(range(span.first, run[-1] + 1))
        for span in spans:
            if span.first <= run[-1] + 1 <= span.last:
                yield set(range(run[0], span.last + 1))


def without_an_end(blocks: set[int]) -> Iterator[set[int]]:
    """The selection without its first block, and without its last one."""
    if len(blocks) > 1:
        yield blocks - {min(blocks)}
        yield blocks - {max(blocks)}


def offer(
    teacher: Teacher, mark: str, selection: dict[str, set[int]] | dict[str, list[int]]
) -> Offer:
    """An edit with its label: Merge 3-5, or Drop 1-23 of transformer_blocks."""
    names = []
    chosen = {}
    for path, blocks in selection.items():
        if not blocks:
            continue
        chosen[path] = sorted(blocks)
        name = ", ".join(run_names(blocks))
        if len(teacher.stacks) > 1:
            name += f" of {path}"
        names.append(name)
    return Offer(f"{mark.capitalize()} {'; '.join(names)}", mark, chosen)
