"""Frozen blocks in the teacher's memory: a student's unchanged block is the teacher's, so a stage
that does not run it needs no copy of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..models import blocks_of
from ..models.host_memory import Host
from ..records import Plan


@torch.no_grad()
def borrow_from_teacher(
    student: nn.Module, teacher: nn.Module, plan: Plan, trained: Iterable[str]
) -> list[str]:
    """Let the student's frozen blocks that equal the teacher's, bit for bit, use its tensors.

    trained: names of parameters that train. For stages that run no such block (block-wise,
    teacher-fed): the teacher's dtype may be another. Returns the names of what is lent.
    """
    trained = tuple(trained)
    student_blocks = blocks_of(student)
    teacher_blocks = blocks_of(teacher)
    lent: list[str] = []
    for path, spans in plan.stacks.items():
        for index, span in enumerate(spans):
            trains = any(name.startswith(f"{path}.{index}.") for name in trained)
            if span.plain and not trains:
                names = _borrow(student_blocks[path][index], teacher_blocks[path][span.first])
                lent += [f"{path}.{index}.{name}" for name in names]
    return lent


def _borrow(block: nn.Module, of: nn.Module) -> list[str]:
    """Use the tensors of another block where they are the same; the names of these."""
    lent = []
    others = dict(of.named_parameters())
    for name, p in block.named_parameters():
        if name in others and _same(p, others[name]):
            p.data = others[name].data
            lent.append(name)
    return lent


@torch.no_grad()
def own_tensors(student: nn.Module, host: Host, teachers: Iterable[nn.Module]) -> None:
    """Give the student tensors of its own again, on the host, which has the room."""
    borrowed = set()
    for teacher in teachers:
        borrowed |= {p.data_ptr() for p in teacher.parameters() if not isinstance(p, DTensor)}
    for p in student.parameters():
        if not isinstance(p, DTensor) and p.data_ptr() in borrowed:
            p.data = host.keep(p.data) if host.apart else p.data.clone()


def _same(p: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, also after a cast to the other's dtype and back.

    What is split between processes stays where it is.
    """
    if isinstance(p, DTensor) or isinstance(other, DTensor) or p.shape != other.shape:
        return False
    there = p.to(other.device)
    return torch.equal(there, other.to(p.dtype)) and torch.equal(there.to(other.dtype), other)
