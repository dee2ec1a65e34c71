"""The factors of a student block's modulation, made of teacher blocks' tensors one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..families import Layout, StackRow
from ..records import Span
from .mean import mean_of
from .modulation_fit import Basis, factor, multiplied_out

# a teacher's tensor, by block and by name inside the block
ReadTensor = Callable[[int, str], torch.Tensor]
DOWN = "down.weight"
FACTORS = (DOWN, "up.weight", "up.bias", "weight", "bias")


@dataclass(frozen=True)
class Factoring:
    """The modulation of a student block is factored anew: to this rank, on these vectors, from
    teacher blocks of this layout.
    """

    rank: int
    basis: Basis
    layout: Layout

    def has_bias(self, linear: str) -> bool:
        return f"{linear}.bias" in self.layout or f"{linear}.up.bias" in self.layout


def factors_anew(layout: Layout, span: Span, row: StackRow) -> int | None:
    """The rank to factor a student block's modulation to; None where the teacher's tensors are
    taken as they are: there is no rank, or the one teacher block has it already.

    A mean of factored blocks is factored again: the product of means is not the mean of products.
    """
    known = row.modulation_rank(layout)
    alone = len(span.source) == 1
    rank = span.rank
    if rank is None and not alone:
        rank = known
    return None if rank == known and alone else rank


def factoring_of(
    layout: Layout, span: Span, row: StackRow, basis: Basis | None
) -> Factoring | None:
    """How the modulation of a student block is factored; None where it is not."""
    rank = factors_anew(layout, span, row)
    if rank is None:
        return None
    assert basis is not None, "a rank of modulation without conditioning vectors"
    return Factoring(rank, basis, layout)


def linear_of(name: str, linears: Sequence[str]) -> str:
    """The modulation linear that a tensor is of, whole or a factor; empty for another tensor."""
    for linear in linears:
        if name.removeprefix(f"{linear}.") in FACTORS:
            return linear
    return ""


def factor_tensor(
    name: str,
    read: ReadTensor,
    blocks: Sequence[int],
    linears: Sequence[str],
    factoring: Factoring,
) -> tuple[torch.Tensor, torch.dtype]:
    """One factor of the mean of teacher blocks' linears, in float64, and the dtype they are stored
    in.
    """
    linear = linear_of(name, linears)
    has_bias = factoring.has_bias(linear)
    rank = factoring.rank
    stored = smallest_tensor(linear, factoring.layout)
    first = read(blocks[0], stored)
    if name == f"{linear}.{DOWN}":
        return factoring.basis.down(rank, has_bias).to(first.device), first.dtype
    weight = mean_linear(linear, "weight", read, blocks, factoring.layout)
    bias = None
    if has_bias:
        bias = mean_linear(linear, "bias", read, blocks, factoring.layout)
    _, up, up_bias = factor(weight, bias, factoring.basis, rank)
    if name == f"{linear}.up.weight":
        return up, first.dtype
    assert up_bias is not None
    return up_bias, first.dtype


def smallest_tensor(linear: str, layout: Layout) -> str:
    """A tensor of the linear that is quickly read."""
    names = [f"{linear}.{factor}" for factor in FACTORS]
    return min((name for name in names if name in layout), key=lambda name: len(layout[name]))


def mean_linear(
    linear: str, tensor: str, read: ReadTensor, blocks: Sequence[int], layout: Layout
) -> torch.Tensor:
    """Weight or bias of a linear, whole; the mean of several blocks'."""

    def whole(block: int) -> torch.Tensor:
        name = f"{linear}.{tensor}"
        if name in layout:
            return read(block, name)
        return whole_tensor(name, lambda stored: read(block, stored))

    if len(blocks) == 1:
        return whole(blocks[0])
    return mean_of(whole(block) for block in blocks)


def whole_tensor(name: str, stored: Callable[[str], torch.Tensor]) -> torch.Tensor:
    """`<linear>.weight` or `.bias` of a linear whose factors `stored` gives; the product in their
    dtype where that is float64, else computed in float64 and rounded once.
    """
    linear, _, tensor = name.rpartition(".")
    if tensor == "bias":
        return stored(f"{linear}.up.bias")
    up = stored(f"{linear}.up.weight")
    return multiplied_out(stored(f"{linear}.{DOWN}"), up).to(up.dtype)
