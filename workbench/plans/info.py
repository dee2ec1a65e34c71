"""What a person is told of a plan and of a teacher: the keys of `plan-info` and `info` (DESIGN
section 9).
"""

from __future__ import annotations

from typing import Any

from ..families import inside
from ..records import Plan, SensitivityMap, Span, Teacher, numel
from .check import check
from .cost import free_cuts, memory, parameters, span_parameters
from .scores import predicted_error
from .spans import family_of
from .speed import Tokens, predicted_latency


def info(
    plan: Plan,
    teacher: Teacher,
    sensitivity: SensitivityMap | None = None,
    weighting: str = "uniform",
    tokens: Tokens | None = None,
) -> dict[str, Any]:
    """What a plan costs: the keys of `workbench plan-info` (DESIGN section 9). The predicted error
    is a mean over timesteps.

    The speed-up is null without a map, as the error is; `predicted_latency`, its inverse, is always
    there.
    """
    check(plan, teacher)
    count = parameters(plan, teacher)
    latency = predicted_latency(plan, teacher, tokens)
    return {
        "parameters": count,
        "teacher_parameters": teacher.parameters,
        "ratio": count / teacher.parameters,
        "depth": plan.depth(),
        "single": {
            path: sum(
                s.stream == "single" or s.source[0] in made_single(teacher, path) for s in spans
            )
            for path, spans in plan.stacks.items()
        },
        "memory": memory(count),
        "predicted_error": predicted_error(plan, sensitivity, weighting) if sensitivity else None,
        "predicted_error_unit": sensitivity.unit if sensitivity else None,
        "predicted_speedup": 1 / max(latency, 1e-9) if sensitivity else None,
        "predicted_latency": latency,
        "free_cuts": free_cuts(plan, teacher),
    }


def info_rows(teacher: Teacher) -> dict[str, Any]:
    """What a teacher is made of: the keys of `workbench info` (DESIGN section 9), exact parameter
    counts, memory in bytes.

    `blocks` counts every block; `block_parameters` is the block that most are like. `parts` counts
    what each part holds over all blocks that have it, `streams` what only the image reads, only the
    text, and both.
    """
    family = family_of(teacher)
    stacks: list[dict[str, Any]] = []
    for stack in teacher.stacks:
        text = [
            sum(
                numel(shape)
                for name, shape in stack.tensors(b).items()
                if inside(name, family.stack(stack.path).text)
            )
            for b in range(stack.depth)
        ]
        blocks = [stack.block_parameters(b) for b in range(stack.depth)]
        single = made_single(teacher, stack.path) if stack.kind == "dual" else range(stack.depth)
        shared = sum(blocks[b] for b in single)
        streams = {"image": sum(blocks) - sum(text) - shared, "text": sum(text), "shared": shared}
        stacks.append(
            {
                "path": stack.path,
                "depth": stack.depth,
                "kind": stack.kind,
                "single": len(single),
                "block_parameters": max(blocks, key=blocks.count),
                "blocks": blocks,
                "streams": streams,
            }
        )
    return {
        "family": teacher.family,
        "class": teacher.class_name,
        "parameters": teacher.parameters,
        "outside": teacher.outside,
        "stacks": stacks,
        "parts": part_parameters(teacher),
        "memory": memory(teacher.parameters),
        "streams": {
            stream: sum(s["streams"][stream] for s in stacks)
            for stream in ("image", "text", "shared")
        },
    }


def made_single(teacher: Teacher, path: str) -> set[int]:
    """The blocks of a dual stack that a former step made single-stream: a hybrid student's have no
    text modules.
    """
    stack, row = teacher.stack(path), family_of(teacher).stack(path)
    return {
        b
        for b in range(stack.depth)
        if stack.kind == "dual" and row.fitted(stack.tensors(b)).kind == "single"
    }


def part_parameters(teacher: Teacher) -> dict[str, int]:
    """Part -> parameters it holds over all blocks of all stacks that have it."""
    out: dict[str, int] = {}
    family = family_of(teacher)
    for stack in teacher.stacks:
        row = family.stack(stack.path)
        for name, part in row.parts.items():
            for block in range(stack.depth - 1 if part.last_only else 0, stack.depth):
                without = span_parameters(Span(blocks=(block, block), drop=(name,)), stack, row)
                out[name] = out.get(name, 0) + stack.block_parameters(block) - without
    return {name: count for name, count in out.items() if count}
