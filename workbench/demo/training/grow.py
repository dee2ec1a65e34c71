"""Twice the depth from a trained transformer: each block copied in place, both copies taking half
the residual step.

Growing while training: Gong et al. 2019 (progressive stacking), SOLAR's depth up-scaling. It makes
neighbours alike by construction, as those of large trained teachers tend to be, and it is cheaper
than training the depth from the start.
"""

from __future__ import annotations

import copy

import torch
from diffusers import QwenImageTransformer2DModel
from torch import nn

from .models import Model

# of the six chunks of an adaLN linear: shift, scale, gate for attention, then for the feed-forward
GATES = (2, 5)


@torch.no_grad()
def scale_gates(linear: Model, factor: float) -> None:
    """Scale what a block adds to one stream. The gate is linear in the adaLN's rows, so this is
    exact.
    """
    for values in (linear.weight, linear.bias):
        values.view(6, -1)[list(GATES)] *= factor


def grow(parent: Model) -> Model:
    """A transformer of twice the depth that predicts almost what its parent does: blocks 2i and 2i
    + 1 are the parent's i.
    """
    child: Model = QwenImageTransformer2DModel.from_config(
        {**parent.config, "num_layers": 2 * len(parent.transformer_blocks)}
    )
    blocks = []
    for block in parent.transformer_blocks:
        blocks += [copy.deepcopy(block), copy.deepcopy(block)]
    for block in blocks:
        scale_gates(block.img_mod[1], 0.5)
        scale_gates(block.txt_mod[1], 0.5)
    # the parent's last text output led nowhere, so it never learned anything
    scale_gates(blocks[-2].txt_mod[1], 0.0)
    outside = {
        n: p for n, p in parent.state_dict().items() if not n.startswith("transformer_blocks.")
    }
    child.load_state_dict(outside, strict=False)
    child.transformer_blocks = nn.ModuleList(blocks)
    return child
