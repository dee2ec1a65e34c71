"""What a plan costs: parameters and bytes. Exact, from tensor layouts alone."""

from __future__ import annotations

from typing import Any

from ..families import FAMILIES, StackRow, inside
from ..records import Plan, Span, StackInfo, Teacher, numel
from .spans import family_of

BYTES = {"bf16": 2.0, "int8": 1.0, "int4": 0.5}  # per parameter, scales and zero points not counted


def span_parameters(span: Span, stack: StackInfo, row: StackRow) -> int:
    """Parameters of the student block this span makes."""
    layout = row.student_layout(stack.tensors(span.source[0]), span.stream, span.drop)
    return sum(numel(shape) for shape in layout.values())


def parameters(plan: Plan, teacher: Teacher) -> int:
    """Parameters of the student's transformer."""
    family = family_of(teacher)
    return teacher.outside + sum(
        span_parameters(span, teacher.stack(path), family.stack(path))
        for path, spans in plan.stacks.items()
        for span in spans
    )


def memory(count: int) -> dict[str, int]:
    """Bytes of so many weights in bf16, int8 and int4 (weights alone, no scales)."""
    return {name: int(count * size) for name, size in BYTES.items()}


def stock(plan: Plan) -> bool:
    """Whether a stock diffusers class with a smaller depth can hold the student."""
    return all(
        span.stream in (None, FAMILIES[plan.family].stack(path).kind) and not span.drop
        for path, spans in plan.stacks.items()
        for span in spans
    )


def free_cuts(plan: Plan, teacher: Teacher) -> list[dict[str, Any]]:
    """Parts of the student whose output nothing reads: dropping them changes no picture.

    In a model of dual-stream blocks alone the last block's text output is discarded (132.15 M
    parameters of Qwen-Image). Each: stack, block (of the student), drop, parameters.
    """
    family, found = family_of(teacher), []
    for path, spans in plan.stacks.items():
        stack, row, span = teacher.stack(path), family.stack(path), spans[-1]
        if span.stream == "single" or len(spans) - 1 in row.pinned_in(len(spans)):
            continue
        layout = stack.tensors(span.source[0])
        for name, part in row.fitted(layout).parts.items():
            there = any(inside(tensor, part.modules) for tensor in layout)
            if part.last_only and there and name not in span.drop:
                without = span.model_copy(update={"drop": (*span.drop, name)})
                saved = span_parameters(span, stack, row) - span_parameters(without, stack, row)
                found.append(
                    {"stack": path, "block": len(spans) - 1, "drop": name, "parameters": saved}
                )
    return found


def cut_free(plan: Plan, teacher: Teacher) -> Plan:
    """The plan with every free cut made."""
    stacks = dict(plan.stacks)
    for cut in free_cuts(plan, teacher):
        *rest, last = stacks[cut["stack"]]
        stacks[cut["stack"]] = [*rest, last.model_copy(update={"drop": (*last.drop, cut["drop"])})]
    return plan.model_copy(update={"stacks": stacks})
