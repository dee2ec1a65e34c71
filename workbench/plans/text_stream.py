"""Smaller text streams in deep student blocks: what may follow every rule, where the family can.

single: text and image share the image branch's weights (Amber-Image, arXiv 2602.17047): half a
block's parameters. slim: the text is only read. Its keys and values stay, each block's own; its
query, output projection, feed-forward and modulation go, so that the text states pass through as
they are: 5/9 of a Qwen-Image block's parameters. PPCL (arXiv 2511.16156) slims the text stream
less, to two linear maps in some blocks; all of it in all deep blocks is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ..families import FAMILIES, StackRow
from ..records import BadInput, Plan, Span, Teacher
from .check import can_single
from .spans import family_of

Protected = Mapping[str, frozenset[int]]  # stack -> protected and pinned teacher blocks
Change = Callable[[Span], Span]


@dataclass(frozen=True)
class TextStream:
    """From which student block on text streams are made smaller.

    slim_from, single_from: a block number, or below 1 a share of the depth; None: no block.
    """

    single_from: float | None = None
    slim_from: float | None = None

    def apply(self, plan: Plan, teacher: Teacher, protected: Protected) -> Plan:
        """The plan with its deep blocks slim, then single-stream; protected blocks stay.

        Raises BadInput where no stack of the teacher can.
        """
        if self.slim_from is not None:
            check_start("slim_from", self.slim_from)
            changes = slim_changes(plan, teacher)
            plan = changed_from(plan, self.slim_from, changes, protected)
        if self.single_from is not None:
            check_start("single_from", self.single_from)
            changes = single_changes(plan, teacher)
            plan = changed_from(plan, self.single_from, changes, protected)
        return plan


def check_start(name: str, first: float) -> None:
    """Refuse what is neither a block number nor a share of the depth."""
    if first < 0 or (first >= 1 and first != int(first)):
        flag = "--" + name.replace("_", "-")
        raise BadInput(f"{name} {first:g}", "a block number, or a share below 1", f"change {flag}")


def slim_changes(plan: Plan, teacher: Teacher) -> dict[str, Change]:
    """Stack -> what makes a block of it slim. Raises BadInput where no stack has text parts."""
    family = family_of(teacher)
    changes: dict[str, Change] = {}
    for path in plan.stacks:
        parts = slim_parts(family.stack(path))
        if parts:
            changes[path] = partial(slim, parts=parts)
    if not changes:
        raise BadInput(
            f"blocks that only read the text in family {plan.family}",
            "a family whose dual blocks have parts to drop",
            "leave slim_from out",
        )
    return changes


def single_changes(plan: Plan, teacher: Teacher) -> dict[str, Change]:
    """Stack -> what makes a block of it single-stream. Raises BadInput where no stack can."""
    changes: dict[str, Change] = {path: single for path in plan.stacks if can_single(teacher, path)}
    if not changes:
        able = sorted(name for name, family in FAMILIES.items() if family.dual_stack)
        raise BadInput(
            f"single-stream blocks in family {plan.family}",
            "a family whose dual blocks can become single: " + ", ".join(able),
            "leave single_from out",
        )
    return changes


def changed_from(
    plan: Plan, first: float, changes: Mapping[str, Change], protected: Protected
) -> Plan:
    """The plan with the spans from the first one on changed, in the stacks that have a change."""
    stacks = dict(plan.stacks)
    for path, change in changes.items():
        spans = plan.stacks[path]
        start = round(first * len(spans)) if first < 1 else int(first)
        stay = protected.get(path, frozenset())
        stacks[path] = spans[:start]
        for span in spans[start:]:
            free = stay.isdisjoint(range(span.first, span.last + 1))
            stacks[path].append(change(span) if free else span)
    return plan.model_copy(update={"stacks": stacks})


def slim_parts(row: StackRow) -> tuple[str, ...]:
    """The parts of a stack's text stream that a slim block lacks; empty where it has none."""
    if row.kind != "dual":
        return ()
    return tuple(
        name for name, part in row.parts.items() if name.startswith("text.") and not part.last_only
    )


def slim(span: Span, parts: tuple[str, ...]) -> Span:
    """The span without these parts too; a single-stream block has no text stream to slim."""
    if span.stream == "single":
        return span
    return span.model_copy(update={"drop": tuple(dict.fromkeys([*span.drop, *parts]))})


def single(span: Span) -> Span:
    """The span as a single-stream block; text parts it drops go with the text."""
    drop = tuple(part for part in span.drop if not part.startswith("text."))
    return span.model_copy(update={"stream": "single", "drop": drop})
