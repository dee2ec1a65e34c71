"""What may follow every rule: the text stream of deep student blocks made smaller, as far as the
family can.

single: text and image share the image branch's weights (Amber-Image, arXiv 2602.17047): half a
block's parameters. slim: the text is only read. Its keys and values stay, each block's own; its
query, output projection, feed-forward and modulation go, so that the text states pass through as
they are: 5/9 of a Qwen-Image block's parameters. PPCL (arXiv 2511.16156) slims the text stream
less, to two linear maps in some blocks; all of it in all deep blocks is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from .. import plans
from ..families import StackRow
from ..records import BadInput, Plan, Span, Teacher

KINDS = {"single_from": "single-stream blocks", "slim_from": "blocks that only read the text"}
Alone = Mapping[str, frozenset[int]]  # stack -> protected and pinned teacher blocks


def deepened(
    plan: Plan,
    teacher: Teacher,
    alone: Alone,
    single_from: float | None = None,
    slim_from: float | None = None,
) -> Plan:
    """The plan with the student blocks from `slim_from` on slim, and those from `single_from` on
    single-stream.

    A number below 1 is a share of the depth. Protected blocks stay as they are. Raises BadInput
    where no stack can.
    """
    if slim_from is not None:
        family = plans.family_of(teacher)
        parts = {path: found for path in plan.stacks if (found := slim_parts(family.stack(path)))}
        plan = _from(
            plan,
            "slim_from",
            slim_from,
            alone,
            "a family whose dual blocks have parts to drop",
            {path: partial(slim, parts=found) for path, found in parts.items()},
        )
    if single_from is not None:
        plan = _from(
            plan,
            "single_from",
            single_from,
            alone,
            "a family whose dual blocks can become single: " + ", ".join(sorted(plans.SINGLE)),
            {path: single for path in plan.stacks if plans.can_single(teacher, path)},
        )
    return plan


def _from(
    plan: Plan,
    name: str,
    first: float,
    alone: Alone,
    wanted: str,
    changes: Mapping[str, Callable[[Span], Span]],
) -> Plan:
    """The plan with the spans from the first one on changed, in the stacks that have a change."""
    if not changes:
        raise BadInput(f"{KINDS[name]} in family {plan.family}", wanted, f"leave {name} out")
    if first < 0 or (first >= 1 and first != int(first)):
        raise BadInput(
            f"{name} {first:g}",
            "a block number, or a share below 1",
            f"change --{name.replace('_', '-')}",
        )
    stacks = dict(plan.stacks)
    for path, change in changes.items():
        spans = plan.stacks[path]
        begin, stay = (
            round(first * len(spans)) if first < 1 else int(first),
            alone.get(path, frozenset()),
        )
        stacks[path] = [
            change(s) if j >= begin and stay.isdisjoint(range(s.first, s.last + 1)) else s
            for j, s in enumerate(spans)
        ]
    return plan.model_copy(update={"stacks": stacks})


def slim_parts(row: StackRow) -> tuple[str, ...]:
    """The parts of a stack's text stream that a slim block goes without; empty where it has none."""
    return (
        tuple(
            name
            for name, part in row.parts.items()
            if name.startswith("text.") and not part.last_only
        )
        if row.kind == "dual"
        else ()
    )


def slim(span: Span, parts: tuple[str, ...]) -> Span:
    """The span without these parts too; a single-stream block has no text stream to slim."""
    return (
        span
        if span.stream == "single"
        else span.model_copy(update={"drop": tuple(dict.fromkeys([*span.drop, *parts]))})
    )


def single(span: Span) -> Span:
    """The span as a single-stream block; text parts it drops go with the text."""
    return span.model_copy(
        update={
            "stream": "single",
            "drop": tuple(p for p in span.drop if not p.startswith("text.")),
        }
    )
