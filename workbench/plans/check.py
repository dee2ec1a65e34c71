"""Is a plan sound for a teacher? The first fault is named with its block and the reason."""

from __future__ import annotations

from collections.abc import Iterable

from ..families import Family, StackRow
from ..records import BadInput, Modulation, Plan, Span, StackInfo, Teacher
from .describe_span import blocks_in_words
from .spans import family_of


def can_single(teacher: Teacher, path: str) -> bool:
    """Whether the dual-stream blocks of a stack can become single-stream."""
    return family_of(teacher).can_single(path)


def check(plan: Plan, teacher: Teacher) -> Plan:
    """Return the plan if it is sound for this teacher; the plan's modulation goes from blocks that
    have none left.

    Raises BadInput naming the block and the reason.
    """
    if plan.family != teacher.family:
        raise BadInput(
            f"a plan for family {plan.family}",
            f"family {teacher.family} of {teacher.name}",
            "use a plan made for it",
        )
    family = family_of(teacher)
    for path in plan.stacks:
        teacher.stack(path)
    stacks = {}
    for stack in teacher.stacks:
        if stack.path not in plan.stacks:
            raise BadInput(
                f"stack {stack.path} is missing from the plan",
                f"spans over its {stack.depth} blocks",
                "add it",
            )
        _check_partition(plan.stacks[stack.path], stack)
        row = family.stack(stack.path)
        spans = [
            without_default(span, plan.modulation, stack, row) for span in plan.stacks[stack.path]
        ]
        for span in spans:
            _check_pinned(span, stack, row)
            _check_start(span, stack, row)
            _check_stream(span, stack, row, can_single(teacher, stack.path))
            _check_parts(span, stack, row)
            check_modulation(span, stack, row, family)
        stacks[stack.path] = spans
    if stacks == plan.stacks:
        return plan
    return plan.model_copy(update={"stacks": stacks})


def without_default(
    span: Span, default: Modulation | None, stack: StackInfo, row: StackRow
) -> Span:
    """The span without the plan's modulation, where its block lost all of its own: there is nothing
    to factor.
    """
    if default is None or span.modulation != default:
        return span
    if row.modulation_in(stack.tensors(span.source[0])) and not modulation_left(span, stack, row):
        return span.model_copy(update={"modulation": "keep"})
    return span


def modulation_left(span: Span, stack: StackInfo, row: StackRow) -> tuple[str, ...]:
    """The modulation linears of the student block."""
    layout = stack.tensors(span.source[0])
    return row.modulation_in(row.student_layout(layout, span.stream, span.drop))


def _check_partition(spans: list[Span], stack: StackInfo) -> None:
    """Every block of the stack is in exactly one span, in order."""
    due = 0  # the block with which the next span must begin
    for span in spans:
        if span.last >= stack.depth:
            raise BadInput(
                f"{stack.path}: block {max(span.first, stack.depth)} does not exist",
                f"blocks 0 to {stack.depth - 1}",
                "correct the span",
            )
        if span.first > due:
            raise BadInput(
                f"{stack.path}: {blocks_in_words(due, span.first - 1)} in no span",
                "every block in exactly one span, in order",
                f"add it to a span before {span.first}",
            )
        if span.first < due:
            raise BadInput(
                f"{stack.path}: block {span.first} is in two spans",
                "every block in exactly one span, in order",
                "shorten one of them",
            )
        due = span.last + 1
    if due < stack.depth:
        raise BadInput(
            f"{stack.path}: {blocks_in_words(due, stack.depth - 1)} in no span",
            "every block in exactly one span",
            "extend the last span",
        )


def _place(span: Span, stack: StackInfo) -> str:
    """Where in the plan an error is."""
    return (
        f"{stack.path}[{span.first}]"
        if len(span) == 1
        else f"{stack.path}[{span.first}-{span.last}]"
    )


def _check_pinned(span: Span, stack: StackInfo, row: StackRow) -> None:
    if span.plain:
        return
    for pinned in row.pinned_in(stack.depth):
        if span.first <= pinned <= span.last:
            raise BadInput(
                f"{_place(span, stack)}: block {pinned} is pinned in this family",
                "it kept alone and unchanged",
                "write modulation: keep" if span.rank else "give it a span of its own",
            )


def _check_start(span: Span, stack: StackInfo, row: StackRow) -> None:
    """Blocks of one shape to average; a gain only where the family can fold it into weights."""
    for block in span.source:
        if stack.layout_of[block] != stack.layout_of[span.source[0]]:
            raise BadInput(
                f"{_place(span, stack)}: block {block} has other shapes than block {span.first}",
                "blocks of one shape to average",
                "choose init first, last or middle",
            )
    if span.gain != 1 and not row.gain:
        raise BadInput(
            f"{_place(span, stack)}: gain {span.gain:g}",
            "gain 1: this family has no factor to fold it into",
            "remove gain",
        )


def _check_stream(span: Span, stack: StackInfo, row: StackRow, able: bool) -> None:
    """`dual` of blocks that have two streams; `single` where the family's blocks can become so."""
    if span.stream == "dual":
        kinds = {row.fitted(stack.tensors(block)).kind for block in span.source}
        if kinds != {"dual"}:
            raise BadInput(
                f"{_place(span, stack)}: stream dual",
                "single: this block has one stream",
                "remove stream",
            )
    if span.stream == "single" and row.kind == "dual" and not able:
        raise BadInput(
            f"{_place(span, stack)}: stream single",
            "dual: the text's weights of this family cannot be tied to the image's",
            "remove stream",
        )


def _check_parts(span: Span, stack: StackInfo, row: StackRow) -> None:
    """Dropped parts are parts that the block has, in the stream that it keeps."""
    parts = row.fitted(stack.tensors(span.source[0])).parts
    for part in span.drop:
        if part not in parts:
            raise BadInput(
                f"{_place(span, stack)}: part {part!r}", "one of " + ", ".join(parts), "rename it"
            )
        if span.stream == "single" and part.startswith("text."):
            raise BadInput(
                f"{_place(span, stack)}: drop {part} of a single-stream block",
                "parts of the one stream",
                "remove it",
            )
        if row.parts[part].last_only and span.last != stack.depth - 1:
            raise BadInput(
                f"{_place(span, stack)}: part {part} is unreachable in the last block only",
                f"block {stack.depth - 1}",
                "remove it",
            )


def check_modulation(span: Span, stack: StackInfo, row: StackRow, family: Family) -> None:
    """Refuse a rank of modulation that the block's linears cannot have, or that saves nothing."""
    if span.rank is None:
        return
    place = f"{_place(span, stack)}: modulation of rank {span.rank}"
    reason = no_modulation(span, stack, row, family)
    if reason:
        raise BadInput(place, f"none: {reason}", "write modulation: keep")
    layout = stack.tensors(span.source[0])
    most = most_rank(layout, row.modulation_in(layout), row)
    if span.rank > most:
        raise BadInput(place, f"a rank of at most {most}", "lower the rank")


def no_modulation(span: Span, stack: StackInfo, row: StackRow, family: Family) -> str:
    """Why the student block has no modulation to factor; empty where it has."""
    linears = row.modulation_in(stack.tensors(span.source[0]))
    if family.conditioning is None or not linears:
        return (
            f"in family {family.name} the modulation is shared by all blocks, small, or fed by an "
            "embedding of the block's own"
        )
    if not modulation_left(span, stack, row):
        return "the modulation of this block is dropped"
    return ""


def most_rank(layout: dict[str, list[int]], linears: Iterable[str], row: StackRow) -> int:
    """The largest rank below the sides of these linears; of factored ones, the rank they have."""
    known = row.modulation_rank(layout)
    if known is not None:
        return known
    return min(min(layout[f"{linear}.weight"]) for linear in linears) - 1
