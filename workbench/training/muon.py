"""Muon (Keller Jordan, 2024, github.com/KellerJordan/Muon), for the matrices of blocks.

torch.optim.Muon takes one matrix at a time; here matrices of one shape go through Newton-Schulz
together, which a small model on a CPU needs, and a linear that the families table knows to be
several (AdaLN, fused projections) is orthogonalised chunk by chunk.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..families import StackRow
from ..models.blocks import all_blocks
from ..models.precision import has_bfloat16


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Nesterov).

    A step has the root mean square of an AdamW step (0.2 sqrt(max dim)), so both share one learning
    rate. A parameter group may say `matrices`: how many equal matrices, one above the other, each
    of its weights is.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, object]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "matrices": 1}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; `closure` is not used."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[as_matrices(p, group["matrices"]).shape].append(p)
            for params in alike.values():
                self._step_alike(params, group)

    def _step_alike(self, params: list[torch.Tensor], group: Mapping[str, float]) -> None:
        """Update parameters that are equally many matrices of one shape, in one go."""
        grads = [p.grad.float() for p in params if p.grad is not None]
        for p, grad in zip(params, grads, strict=True):
            self.state[p].setdefault("momentum", torch.zeros_like(grad))
        moments = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, moments, group["momentum"])  # Nesterov
        count = int(group["matrices"])
        stacked = torch.cat([as_matrices(gathered(g), count) for g in ahead])  # (N, R, C)
        updates = orthogonalise(stacked).to(params[0].dtype).split(count)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        shaped = [split_as(u.reshape(p.shape), p) for u, p in zip(updates, params, strict=True)]
        size = 0.2 * max(stacked.shape[1:]) ** 0.5
        torch._foreach_add_(params, shaped, alpha=-group["lr"] * size)


def orthogonalise(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrices; g and result (N, R, C). Computes in bfloat16
    where the device has kernels for it, else in float32.

    The quintic Newton-Schulz iteration of Muon.
    """
    x = g.bfloat16() if has_bfloat16(g.device.type) else g.float()
    flipped = x.shape[1] > x.shape[2]
    x = x.mT if flipped else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if flipped else x


def as_matrices(weight: torch.Tensor, count: int = 1) -> torch.Tensor:
    """A weight as `count` matrices of equally many rows, (count, R, C); convolutions flattened."""
    return weight.reshape(count, weight.shape[0] // count, math.prod(weight.shape[1:]))


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that FSDP split: Newton-Schulz needs whole matrices."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def split_as(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor, split between processes as `other` is."""
    if isinstance(other, DTensor):
        return distribute_tensor(tensor, other.device_mesh, other.placements)
    return tensor


# --- which parameters are matrices ----------------------------------------------------------------


def block_matrices(block: nn.Module, row: StackRow) -> dict[str, int]:
    """The block's weights that are matrices -> of how many, one above the other, each consists.

    The families table says which linears are several in one: wherever it names chunks of rows, as
    those of an AdaLN linear or of a fused projection.
    """
    layout = {name: list(p.shape) for name, p in block.named_parameters()}
    fitted = row.fitted(layout)
    parts = [(*part.rows, *part.gates) for part in fitted.parts.values()]
    counts = {}
    for rows in chain(fitted.gain, *parts):
        if rows.dim == 0 and rows.of is not None:
            counts[f"{rows.tensor}.weight"] = rows.of
            counts[f"{rows.tensor}.up.weight"] = rows.of  # of a linear in two factors
    return {name: counts.get(name, 1) for name, shape in layout.items() if len(shape) >= 2}


def matrices_of(transformer: nn.Module) -> dict[str, int]:
    """The same for all blocks of a model, under the parameters' full names."""
    out = {}
    for block in all_blocks(transformer):
        path, index = block.place
        for name, count in block_matrices(block.module, block.row).items():
            out[f"{path}.{index}.{name}"] = count
    return out
