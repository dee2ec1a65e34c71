"""The order in which a forward uses a model's parameters.

Modules are often registered in another order than they run: Z-Image has its output projection
before its blocks, PixArt its embedders behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..models.blocks import all_blocks
from .span_states import Predicts


@torch.no_grad()
def parameters_in_order(model: nn.Module, batch: Predicts) -> list[str]:
    """Names of the parameters, as one forward first uses them; those it does not use are left out.

    A block is noted too when it is called, as `<stack>.<number>.`: the parameters of blocks that
    are split between processes (FSDP2) are other tensors while the block runs.
    """
    uses = _FirstUses({id(p): name for name, p in model.named_parameters()})
    handles = []
    for block in all_blocks(model):
        prefix = f"{block.place[0]}.{block.place[1]}."
        handles.append(block.module.register_forward_pre_hook(partial(uses.note_call, prefix)))
    try:
        with uses:
            batch.predict(model)
    finally:
        for handle in handles:
            handle.remove()
    return list(uses.order)


class _FirstUses(TorchDispatchMode):
    """Notes when a block is first called, and when an operator first takes a parameter."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.order: dict[str, None] = {}

    def note_call(self, prefix: str, module: nn.Module, args: Any) -> None:
        self.order.setdefault(prefix)

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self.names:
                self.order.setdefault(self.names[id(value)])
        return operator(*args, **(kwargs or {}))
