"""Hybrid students: dual-stream blocks made single, and blocks without some of their parts.

One source of truth: the classes used here for previews, training and loading are what the exporter
writes into a student's folder. `parts`, `attention`, `student` and one module per family import
torch and diffusers alone, so that `writing` can join them into one file.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..families import StackRow
from ..records import BadInput
from .classes import can_single, dual_stack, student_class, table
from .modeling_file import module_name, source
from .removed_parts import without_parts

__all__ = ["block", "can_single", "dual_stack", "module_name", "source", "student_class"]


def block(
    teacher_block: nn.Module, family: str, row: StackRow, stream: str | None, drop: Sequence[str]
) -> nn.Module:
    """The student block that a teacher's block becomes, over the same parameters: nothing is
    copied.

    Raises BadInput where the family's blocks cannot become single, or for a part the block lacks.
    """
    layout = {name: tuple(tensor.shape) for name, tensor in teacher_block.state_dict().items()}
    made = row.fitted(layout)
    if stream == "single" and made.kind == "dual":
        if not can_single(family, row.path):
            raise BadInput(
                f"stream single in {row.path} of family {family}",
                "a stack whose blocks can become single",
                "remove stream",
            )
        drop = (*drop, *(part for part in row.lacking(layout) if not part.startswith("text.")))
        teacher_block = student_class(family).single_class(teacher_block)
        made = row.fitted({name: layout[name] for name in teacher_block.state_dict()})
    parts = table(made)
    for part in drop:
        if part not in parts:
            raise BadInput(
                f"{row.path} has no part {part!r} here", "one of " + ", ".join(parts), "rename it"
            )
    return (
        without_parts(teacher_block, [parts[part] for part in drop], len(row.returns) > 1)
        if drop
        else teacher_block
    )
