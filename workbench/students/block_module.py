"""A student block's module made from a teacher's, in memory, over the same parameters. Which weights
it starts with: `weights_from_span.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..families import FAMILIES, StackRow
from ..records import BadInput
from .low_rank_linear import LowRankLinear, in_two_factors
from .removed_parts import own_slot, shallow_copy, without_parts
from .tables import block_class, part_table


def student_block(
    teacher_block: nn.Module,
    family: str,
    row: StackRow,
    stream: str | None,
    drop: Sequence[str],
    rank: int | None = None,
) -> nn.Module:
    """The student block that a teacher's block becomes, over the same parameters: nothing is
    copied. With a rank, its modulation linears are empty ones of this rank, on the meta device,
    unless they have that rank already.

    Raises BadInput where the family's blocks cannot become single, or for a part the block lacks.
    """
    layout = {name: tuple(tensor.shape) for name, tensor in teacher_block.state_dict().items()}
    fitted = row.fitted(layout)
    if stream == "single" and fitted.kind == "dual":
        single_class = block_class(family)
        if single_class is None or not FAMILIES[family].can_single(row.path):
            raise BadInput(
                f"stream single in {row.path} of family {family}",
                "a stack whose blocks can become single",
                "remove stream",
            )
        lacking = [part for part in row.lacking(layout) if not part.startswith("text.")]
        drop = (*drop, *lacking)
        teacher_block = single_class(teacher_block)
        fitted = row.fitted({name: layout[name] for name in teacher_block.state_dict()})
    if rank is not None:
        teacher_block = with_rank(teacher_block, row, rank)
        shapes = {name: tuple(t.shape) for name, t in teacher_block.state_dict().items()}
        fitted = row.fitted(shapes)
    parts = part_table(fitted)
    for part in drop:
        if part not in parts:
            found = f"{row.path} has no part {part!r} here"
            raise BadInput(found, "one of " + ", ".join(parts), "rename it")
    if not drop:
        return teacher_block
    return without_parts(teacher_block, [parts[part] for part in drop], len(row.returns) > 1)


def with_rank(block: nn.Module, row: StackRow, rank: int) -> nn.Module:
    """A block over the same parameters whose modulation linears are empty ones of this rank."""
    block = shallow_copy(block)
    for linear in row.modulation:
        slot = own_slot(block, linear)
        if slot is None:
            continue
        if isinstance(slot.module, LowRankLinear) and slot.module.down.out_features == rank:
            continue
        with torch.device("meta"):
            slot.put(in_two_factors(slot.module, rank))
    return block
