"""Weights as they come back from 4 bits: quantized and dequantized at once, to see what the
rounding does (edit `int4`).

The format is GGUF's Q4_0, the plainest that people really run: groups of 32 weights along a row, 4
bits each, symmetric around a float16 scale of the group's extreme value / -8; 4.5 bits a weight.
As gguf-py's Q4_0, but for weights halfway between two levels, whose products gguf rounds to
float32. Linears alone, as HierarchicalPrune (arXiv 2508.04663) and GGUF checkpoints do; biases and
norms stay as they are.
"""

from __future__ import annotations

import torch
from torch import nn

from ..families import inside
from .low_rank_linear import LowRankLinear
from .weights_from_span import Tensors

GROUP = 32  # weights that share a scale
FORMAT = f"GGUF Q4_0: groups of {GROUP}, symmetric, float16 scales, Linear weights only"


def int4(weight: torch.Tensor) -> torch.Tensor:
    """A weight (..., columns) after 4 bits, in its own dtype. Columns must be a multiple of 32."""
    groups = weight.float().reshape(-1, GROUP)
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    scale = extreme / -8
    inverse = torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
    # as the reference: 8.5 and down, not to even
    codes = (groups.double() * inverse.double() + 8.5).trunc().clamp(0, 15)
    return ((codes - 8).float() * scale.half().float()).reshape(weight.shape).to(weight.dtype)


def quantized(block: nn.Module, group: int = GROUP) -> list[str]:
    """Names of the weights that 4 bits can hold: Linears whose rows are whole groups. The factors
    of a modulation stay as they are: they are small, and every output depends on each.
    """
    factors = [name for name, module in block.named_modules() if isinstance(module, LowRankLinear)]
    return [
        f"{name}.weight" if name else "weight"
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
        and module.in_features % group == 0
        and not inside(name, factors)
    ]


def int4_state(block: nn.Module) -> Tensors:
    """The block's state dict with those weights after 4 bits."""
    chosen = set(quantized(block))
    return {
        name: int4(tensor) if name in chosen else tensor
        for name, tensor in block.state_dict().items()
    }
