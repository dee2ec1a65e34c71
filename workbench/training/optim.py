"""Optimizers, schedules and the average of weights for distillation.

Muon (Keller Jordan, 2024, github.com/KellerJordan/Muon) for matrices, AdamW for the rest.
torch.optim.Muon takes one matrix at a time; here matrices of one shape go through Newton-Schulz
together, which a small model on a CPU needs, and the AdaLN linears are orthogonalised chunk by
chunk.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

Named = Iterable[tuple[str, nn.Parameter]]


def orthogonalise(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz, quintic: roughly the nearest semi-orthogonal matrices, in bfloat16. g and
    result (N, R, C).
    """
    x = g.bfloat16()
    flipped = x.shape[1] > x.shape[2]
    x = x.mT if flipped else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if flipped else x


def matrices_in(shape: Sequence[int]) -> tuple[int, int, int]:
    """A weight's (N, R, C): convolutions flattened, AdaLN linears (6D, D) as the six matrices they
    are.
    """
    rows, columns = shape[0], math.prod(shape[1:])
    return (6, columns, columns) if rows == 6 * columns else (1, rows, columns)


def as_matrices(weight: torch.Tensor) -> torch.Tensor:
    """(N, R, C)"""
    return weight.reshape(matrices_in(weight.shape))


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz needs whole matrices: what FSDP split is gathered."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _split_as(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (
        distribute_tensor(tensor, other.device_mesh, other.placements)
        if isinstance(other, DTensor)
        else tensor
    )


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. A step has the root mean square of an AdamW step (0.2 sqrt(max
    dim)), so both share one lr.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[matrices_in(p.shape)].append(p)
            for shape, params in shapes.items():
                self._step_alike(shape, params, group)

    def _step_alike(
        self, shape: tuple[int, ...], params: list[Any], group: Mapping[str, Any]
    ) -> None:
        grads = [p.grad.float() for p in params]
        moments = [
            self.state[p].setdefault("momentum", torch.zeros_like(g))
            for p, g in zip(params, grads, strict=True)
        ]
        torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
        look_ahead = torch._foreach_lerp(grads, moments, group["momentum"])  # Nesterov
        update = (
            orthogonalise(torch.cat([as_matrices(_whole(g)) for g in look_ahead]))
            .to(params[0].dtype)
            .split(shape[0])
        )
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(
            params,
            [_split_as(u.reshape(p.shape), p) for u, p in zip(update, params, strict=True)],
            alpha=-group["lr"] * 0.2 * max(shape[1:]) ** 0.5,
        )


class Optimizers:
    """AdamW, or Muon with AdamW for what is no hidden matrix; `scale` multiplies the step of single
    parameters.

    Parameters without a gradient are left alone, weight decay included. The step is scaled and not
    the gradient: both optimizers undo any factor on a gradient. A scale of 0 belongs in
    requires_grad, not here.
    """

    def __init__(
        self,
        named: Named,
        kind: Literal["adamw", "muon"],
        lr: float,
        weight_decay: float,
        scale: Mapping[str, float] | None = None,
        hidden: Iterable[str] = (),
    ) -> None:
        factors, inside = scale or {}, tuple(hidden)
        groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = defaultdict(list)
        self.named = dict(named)
        for name, p in self.named.items():
            matrix = kind == "muon" and p.ndim >= 2 and name.startswith(inside)
            # torch's loops over many tensors take one kind
            groups[matrix, factors.get(name, 1.0), isinstance(p, DTensor)].append(p)
        self.lr = lr
        made = {
            matrix: [{"params": ps, "factor": f} for (m, f, _), ps in groups.items() if m == matrix]
            for matrix in (True, False)
        }
        self.all: list[torch.optim.Optimizer] = []
        if made[True]:
            self.all.append(Muon(made[True], lr=lr, weight_decay=weight_decay))
        if made[False]:
            self.all.append(
                torch.optim.AdamW(made[False], lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
            )

    def step(self, share: float) -> None:
        """One update at `share` of the learning rate (warm-up and schedule)."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * share * group["factor"]
            optimizer.step()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Moments by the parameter's name: how parameters are grouped does not matter."""
        names: dict[Any, str] = {p: name for name, p in self.named.items()}
        return {
            names[p]: dict(moments)
            for optimizer in self.all
            for p, moments in optimizer.state.items()
        }

    def load_state_dict(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        for optimizer in self.all:
            held = {p for group in optimizer.param_groups for p in group["params"]}
            optimizer.state.update(
                {
                    self.named[name]: dict(moments)
                    for name, moments in states.items()
                    if self.named[name] in held
                }
            )


def lr_share(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Share of the learning rate at a step: linear warm-up, then constant, or linear or half a
    cosine down towards 0.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[
        schedule
    ]


class Average:
    """Exponential moving average of parameters, in float32; young averages follow faster: min(rate,
    (1 + n) / (10 + n)).
    """

    def __init__(self, named: Named, rate: float) -> None:
        self.named, self.rate, self.steps = dict(named), rate, 0
        self.values = {name: p.detach().float().clone() for name, p in self.named.items()}

    @torch.no_grad()
    def update(self) -> None:
        rate = min(self.rate, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for split in (False, True):
            names = [name for name, p in self.named.items() if isinstance(p, DTensor) == split]
            if names:
                torch._foreach_lerp_(
                    [self.values[n] for n in names],
                    [self.named[n].detach().float() for n in names],
                    1 - rate,
                )

    def restore(self, values: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from the values of a checkpoint."""
        self.steps = steps
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their average."""
        for name, p in self.named.items():
            now = p.detach().float().clone()
            p.copy_(self.values[name])
            self.values[name].copy_(now)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in place of the parameters."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def block_scale(
    scores: Mapping[str, float],
    kind: Literal["inverse-sensitivity", "binary"],
    free: Iterable[str] = (),
) -> dict[str, float]:
    """Factor on the step of each block from its sensitivity (higher = keep): the more sensitive,
    the less it moves.

    SGDistill (HierarchicalPrune, arXiv 2508.04663) scales by 1 / sensitivity and says no more;
    ours: median / score, at most 1. Its released code is `binary`: full update or none; ours: none
    above the median. Blocks in `free` move in full.
    """
    if not scores:
        return {}
    middle = sorted(scores.values())[(len(scores) - 1) // 2]
    inverse = {b: 1.0 if s <= middle else max(middle, 0.0) / s for b, s in scores.items()}
    factors = (
        inverse
        if kind == "inverse-sensitivity"
        else {b: float(s <= middle) for b, s in scores.items()}
    )
    return factors | {block: 1.0 for block in free if block in factors}
