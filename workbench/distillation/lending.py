"""Frozen blocks in the teacher's memory: a student's unchanged block is the teacher's, so a stage
that does not run it needs no copy.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..models import blocks_of
from ..records import Plan


@torch.no_grad()
def lend(student: nn.Module, teacher: nn.Module, plan: Plan, trained: Iterable[str]) -> int:
    """Let the student's blocks that are the teacher's, bit for bit and frozen, use its tensors.
    Returns the bytes that are free now.

    For stages that run no such block (block-wise, teacher-fed): the teacher's dtype may be another.
    """
    kept, freed = tuple(trained), 0
    mine, theirs = blocks_of(student), blocks_of(teacher)
    for path, spans in plan.stacks.items():
        for index, span in enumerate(spans):
            if not span.plain or any(name.startswith(f"{path}.{index}.") for name in kept):
                continue
            source = dict(theirs[path][span.first].named_parameters())
            for name, p in mine[path][index].named_parameters():
                other = source.get(name)
                if other is not None and _same(p, other):
                    freed += p.nbytes
                    p.data = other.data
    return freed


@torch.no_grad()
def take_back(student: nn.Module, dtype: torch.dtype, teachers: Iterable[nn.Module]) -> None:
    """Give the student tensors of its own again."""
    lent = {
        p.data_ptr()
        for teacher in teachers
        for p in teacher.parameters()
        if not isinstance(p, DTensor)
    }
    for p in student.parameters():
        if not isinstance(p, DTensor) and p.data_ptr() in lent:
            p.data = p.data.to(dtype, copy=True)


def _same(p: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, also after a cast to the other's dtype and back; what is split among processes stays
    where it is.
    """
    if isinstance(p, DTensor) or isinstance(other, DTensor) or p.shape != other.shape:
        return False
    return torch.equal(p, other.to(p.dtype)) and torch.equal(p.to(other.dtype), other)
