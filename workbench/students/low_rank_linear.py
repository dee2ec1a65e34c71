"""Linears in two factors: AdaLN linears of a student whose conditioning vectors lie near a plane of
few dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


class LowRankLinear(nn.Module):
    """A linear (in -> out) as up(down(x)): in -> rank -> out. The bias is in `up`."""

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool) -> None:
        super().__init__()
        self.in_features = inputs
        self.out_features = outputs
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.up(self.down(x))  # (.., in) -> (.., out)
        return y


def in_two_factors(linear: Any, rank: int) -> LowRankLinear:
    """An empty linear of this rank in a linear's place, of its sizes, dtype and device."""
    if isinstance(linear, LowRankLinear):
        weight = linear.up.weight
        bias = linear.up.bias
    else:
        weight = linear.weight
        bias = linear.bias
    low_rank = LowRankLinear(linear.in_features, linear.out_features, rank, bias is not None)
    return low_rank.to(weight.dtype).requires_grad_(weight.requires_grad)


def factor_modulation(
    model: nn.Module, ranks: Mapping[str, int], linears: Mapping[str, Sequence[str]]
) -> None:
    """Put linears of the ranks given in the places of a model's modulation linears.

    ranks: "<stack>.<block>" -> rank. linears: stack -> names of its blocks' modulation linears.
    """
    for place, rank in ranks.items():
        stack = place.rpartition(".")[0]
        block = model.get_submodule(place)
        for path in linears[stack]:
            parent, _, name = path.rpartition(".")
            holder: Any = submodule(block, parent)
            if holder is not None and hasattr(holder, name):
                setattr(holder, name, in_two_factors(getattr(holder, name), rank))


def submodule(block: nn.Module, path: str) -> nn.Module | None:
    """The module at a path inside the block; None where there is none."""
    module: Any = block
    for step in path.split("."):
        module = module._modules.get(step)
        if module is None:
            return None
    return module if isinstance(module, nn.Module) else None
