"""A teacher's LoRA for its student: the blocks have other numbers there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from ..records import Plan

Value = TypeVar("Value")


def lora_for_student(tensors: Mapping[str, Value], plan: Plan) -> dict[str, Value]:
    """A LoRA's tensors under the names that the student's blocks have, by its plan.yaml.

    A block that was made of one teacher block gets that block's; of merged blocks and of dropped
    ones nothing is taken over. Names outside the plan's stacks stay.
    """
    numbers = {path: block_numbers(plan, path) for path in plan.stacks}
    paths = "|".join(re.escape(path) for path in plan.stacks)
    in_block = re.compile(rf"(.*?\b)({paths})([._])(\d+)([._].+)")
    out: dict[str, Value] = {}
    for name, value in tensors.items():
        match = in_block.fullmatch(name)
        if match is None:
            out[name] = value
            continue
        before, path, dot, number, rest = match.groups()
        for student in numbers[path].get(int(number), ()):
            out[f"{before}{path}{dot}{student}{rest}"] = value
    return out


def block_numbers(plan: Plan, path: str) -> dict[int, list[int]]:
    """Teacher block -> the student blocks that were made of it alone."""
    numbers: dict[int, list[int]] = {}
    for student, span in enumerate(plan.stacks[path]):
        if len(span.source) == 1:
            numbers.setdefault(span.source[0], []).append(student)
    return numbers
