"""What a plan costs: parameters and bytes. Exact, from tensor layouts alone."""

from __future__ import annotations

from dataclasses import dataclass

from ..families import StackRow, inside
from ..records import Plan, Span, StackInfo, Teacher, numel
from .spans import family_of

BYTES = {"bf16": 2.0, "int8": 1.0, "int4": 0.5}  # per parameter, scales and zero points not counted


@dataclass(frozen=True)
class FreeCut:
    """A part of a student block whose output nothing reads.

    block: number of the student block. parameters: how many go with the part.
    """

    stack: str
    block: int
    drop: str
    parameters: int


def span_parameters(span: Span, stack: StackInfo, row: StackRow) -> int:
    """Parameters of the student block this span makes."""
    layout = row.student_layout(stack.tensors(span.source[0]), span.stream, span.drop, span.rank)
    return sum(numel(shape) for shape in layout.values())


def parameters(plan: Plan, teacher: Teacher) -> int:
    """Parameters of the student's transformer."""
    family = family_of(teacher)
    total = teacher.outside
    for path, spans in plan.stacks.items():
        stack = teacher.stack(path)
        total += sum(span_parameters(span, stack, family.stack(path)) for span in spans)
    return total


def memory(count: int) -> dict[str, int]:
    """Bytes of so many weights in bf16, int8 and int4 (weights alone, no scales)."""
    return {name: int(count * size) for name, size in BYTES.items()}


def free_cuts(plan: Plan, teacher: Teacher) -> list[FreeCut]:
    """Parts of the student whose output nothing reads: dropping them changes no picture.

    In a model of dual-stream blocks alone the last block's text output is discarded (132.15 M
    parameters of Qwen-Image).
    """
    family = family_of(teacher)
    cuts: list[FreeCut] = []
    for path, spans in plan.stacks.items():
        row = family.stack(path)
        last = len(spans) - 1
        if spans[last].stream != "single" and last not in row.pinned_in(len(spans)):
            cuts += _cuts_of_last(spans[last], last, teacher.stack(path), row)
    return cuts


def _cuts_of_last(span: Span, number: int, stack: StackInfo, row: StackRow) -> list[FreeCut]:
    layout = stack.tensors(span.source[0])
    whole = span_parameters(span, stack, row)
    cuts = []
    for name, part in row.fitted(layout).parts.items():
        present = any(inside(tensor, part.modules) for tensor in layout)
        if part.last_only and present and name not in span.drop:
            without = span.model_copy(update={"drop": (*span.drop, name)})
            saved = whole - span_parameters(without, stack, row)
            cuts.append(FreeCut(stack.path, number, name, saved))
    return cuts


def cut_free(plan: Plan, teacher: Teacher) -> Plan:
    """The plan with every free cut made."""
    stacks = dict(plan.stacks)
    for cut in free_cuts(plan, teacher):
        *rest, last = stacks[cut.stack]
        stacks[cut.stack] = [*rest, last.model_copy(update={"drop": (*last.drop, cut.drop)})]
    return plan.model_copy(update={"stacks": stacks})
