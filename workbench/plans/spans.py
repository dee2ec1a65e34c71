"""Plans from a few numbers: every block, even cuts, kept blocks, a person's marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from ..families import FAMILIES, Family
from ..records import BadInput, Plan, Span, Teacher


def family_of(teacher: Teacher) -> Family:
    try:
        return FAMILIES[teacher.family]
    except KeyError:
        raise BadInput(
            f"family {teacher.family!r} is unknown",
            "one of " + ", ".join(FAMILIES),
            "use a known family",
        ) from None


def identity(teacher: Teacher) -> Plan:
    """The plan that keeps every block."""
    stacks = {s.path: [Span(blocks=(b, b)) for b in range(s.depth)] for s in teacher.stacks}
    return Plan(
        teacher=teacher.name, family=teacher.family, origin={"rule": "identity"}, stacks=stacks
    )


def spans_of(depth: int, starts: Iterable[int]) -> list[Span]:
    """Contiguous spans that begin at the given blocks; the first must be 0."""
    cuts = [*sorted(set(starts)), depth]
    return [Span(blocks=(a, b - 1)) for a, b in pairwise(cuts)]


def spans_of_kept(depth: int, kept: Iterable[int], path: str = "the stack") -> list[Span]:
    """One span per kept block: itself and the dropped run after it, init first.

    A run before the first kept block joins it with init last, and so does each run up to the next
    kept block that has no run of its own behind it. Raises BadInput where no partition says it (one
    kept block, dropped runs on both sides).
    """
    order = sorted(set(kept))
    if not order:
        raise BadInput(f"no block of {path} is kept", "at least one kept block", "keep a block")
    if order[0] == 0:
        return spans_of(depth, order)
    spans, due = [], 0
    for at, block in enumerate(order):
        end = order[at + 1] if at + 1 < len(order) else depth
        if end == block + 1:  # nothing dropped behind it: the backward joins end here
            spans.append(Span(blocks=(due, block), init="last" if due < block else "first"))
            return spans + [
                s.model_copy(update={"blocks": (s.first + end, s.last + end)})
                for s in (
                    spans_of(depth - end, [b - end for b in order[at + 1 :]]) if end < depth else []
                )
            ]
        spans.append(Span(blocks=(due, block), init="last" if due < block else "first"))
        due = block + 1
    raise BadInput(
        f"{path}: blocks are dropped before block {order[0]} and behind {order[-1]}, "
        f"with none kept in a row between",
        "a contiguous span for every kept block",
        "keep block 0 or the last block",
    )


def from_marks(teacher: Teacher, marks: Mapping[str, Mapping[int, str]], **origin: Any) -> Plan:
    """A plan from a person's clicks: stack -> block -> keep | drop | merge.

    A `drop` block vanishes into the span of a kept neighbour (see spans_of_kept). Where a run after
    a kept block has a `merge` in it, the whole run is averaged into that block, with gain = span
    length.
    """
    stacks = {s.path: _mark_spans(s.depth, marks.get(s.path, {}), s.path) for s in teacher.stacks}
    return Plan(
        teacher=teacher.name,
        family=teacher.family,
        origin={"rule": "by hand", **origin},
        stacks=stacks,
    )


def _mark_spans(depth: int, marks: Mapping[int, str], path: str) -> list[Span]:
    spans = spans_of_kept(depth, [b for b in range(depth) if marks.get(b, "keep") == "keep"], path)
    return [
        span.model_copy(update={"init": "mean", "gain": float(len(span))})
        if any(marks.get(b) == "merge" for b in range(span.first, span.last + 1))
        else span
        for span in spans
    ]
