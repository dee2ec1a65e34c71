"""Is a plan sound for a teacher? The first fault is named with its block and the reason."""

from __future__ import annotations

from ..families import StackRow
from ..records import BadInput, Plan, Span, StackInfo, Teacher
from .spans import family_of

# families whose dual blocks can become single
SINGLE = frozenset({"qwenimage", "flux", "sd3", "hunyuanimage", "auraflow"})


def can_single(teacher: Teacher, path: str) -> bool:
    """Whether the dual-stream blocks of a stack can become single-stream."""
    row = family_of(teacher).stack(path)
    return row.kind == "dual" and bool(row.tie) and teacher.family in SINGLE


def check(plan: Plan, teacher: Teacher) -> Plan:
    """Return the plan if it is sound for this teacher; raise BadInput naming the block and the
    reason otherwise.
    """
    if plan.family != teacher.family:
        raise BadInput(
            f"the plan is for family {plan.family}",
            f"family {teacher.family} of {teacher.name}",
            "use a plan made for it",
        )
    family = family_of(teacher)
    for path in plan.stacks:
        teacher.stack(path)
    for stack in teacher.stacks:
        if stack.path not in plan.stacks:
            raise BadInput(
                f"stack {stack.path} is missing from the plan",
                f"spans over its {stack.depth} blocks",
                "add it",
            )
        _check_partition(plan.stacks[stack.path], stack)
        for span in plan.stacks[stack.path]:
            _check_span(span, stack, family.stack(stack.path), can_single(teacher, stack.path))
    return plan


def _check_partition(spans: list[Span], stack: StackInfo) -> None:
    where, due = stack.path, 0
    for span in spans:
        if span.last >= stack.depth:
            raise BadInput(
                f"{where}: block {max(span.first, stack.depth)} does not exist",
                f"blocks 0 to {stack.depth - 1}",
                "correct the span",
            )
        if span.first > due:
            missing = f"block {due}" if span.first == due + 1 else f"blocks {due}-{span.first - 1}"
            raise BadInput(
                f"{where}: {missing} in no span",
                "every block in exactly one span, in order",
                f"add it to a span before {span.first}",
            )
        if span.first < due:
            raise BadInput(
                f"{where}: block {span.first} is in two spans",
                "every block in exactly one span, in order",
                "shorten one of them",
            )
        due = span.last + 1
    if due < stack.depth:
        raise BadInput(
            f"{where}: block {due} to {stack.depth - 1} in no span",
            "every block in exactly one span",
            "extend the last span",
        )


def _check_span(span: Span, stack: StackInfo, row: StackRow, able: bool) -> None:
    where = f"{stack.path}[{span.first}{'' if len(span) == 1 else f'-{span.last}'}]"
    for pinned in row.pinned_in(stack.depth):
        if span.first <= pinned <= span.last and not span.plain:
            raise BadInput(
                f"{where}: block {pinned} is pinned in this family",
                "it kept alone and unchanged",
                "give it a span of its own",
            )
    if len(span.source) > 1 and len({stack.layout_of[b] for b in span.source}) > 1:
        odd = next(b for b in span.source if stack.layout_of[b] != stack.layout_of[span.first])
        raise BadInput(
            f"{where}: block {odd} has other shapes than block {span.first}",
            "blocks of one shape to average",
            "choose init first, last or middle",
        )
    if span.gain != 1 and not row.gain:
        raise BadInput(
            f"{where}: gain {span.gain:g}",
            "gain 1: this family has no factor to fold it into",
            "remove gain",
        )
    if span.stream == "dual" and any(
        row.fitted(stack.tensors(block)).kind != "dual" for block in span.source
    ):
        raise BadInput(
            f"{where}: stream dual", "single: this block has one stream", "remove stream"
        )
    if span.stream == "single" and row.kind == "dual" and not able:
        raise BadInput(
            f"{where}: stream single",
            "dual: the text's weights of this family cannot be tied to the image's",
            "remove stream",
        )
    held = row.fitted(stack.tensors(span.source[0])).parts
    for part in span.drop:
        if part not in held:
            raise BadInput(
                f"{where}: part {part!r} is unknown", "one of " + ", ".join(held), "rename it"
            )
        if span.stream == "single" and part.startswith("text."):
            raise BadInput(
                f"{where}: drop {part} of a single-stream block",
                "parts of the one stream",
                "remove it",
            )
        if row.parts[part].last_only and span.last != stack.depth - 1:
            raise BadInput(
                f"{where}: part {part} is unreachable in the last block only",
                f"block {stack.depth - 1}",
                "remove it",
            )
