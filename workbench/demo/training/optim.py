"""Muon for matrices, Adam for the rest, sharded over processes; float32 masters of bfloat16
weights, and their average.

Muon (Keller Jordan, 2024): momentum made orthogonal by Newton-Schulz. Each process owns every n-th
parameter, updates it, and shares the new weights; so optimizer work and memory are divided, not
repeated.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist

from ...training import muon
from ...training.muon import orthogonalise

Tensor = torch.Tensor


def as_matrices(weight: Tensor) -> Tensor:
    """A weight of the demo's model as matrices (N, R, C): an AdaLN linear (6 D, D) is six."""
    is_adaln = weight.shape[0] == 6 * math.prod(weight.shape[1:])
    return muon.as_matrices(weight, 6 if is_adaln else 1)


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


class Muon:
    """The optimizer of the demo's trainers. `step` reads summed gradients from `.grad` and writes
    the parameters.

    named: (name, parameter) pairs; matrices (2 or more dimensions, not in `adam_names`) go to Muon,
    the rest to Adam.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, torch.nn.Parameter]],
        adam_names: tuple[str, ...] = (),
        decay: float = 0.01,
        ema: float = 0.998,
    ) -> None:
        rank, world = rank_and_world()
        self.named = [(n, p) for n, p in named if p.requires_grad]
        self.decay = decay
        self.ema_rate = ema
        self.steps = 0
        groups: dict[tuple[int, ...], list[str]] = defaultdict(list)  # () is Adam's
        for name, p in self.named:
            shape: tuple[int, ...] = ()
            if p.ndim >= 2 and not any(key in name for key in adam_names):
                shape = tuple(as_matrices(p).shape)
            groups[shape].append(name)
        self.groups = {shape: names[rank::world] for shape, names in groups.items()}
        owned = set(chain.from_iterable(self.groups.values()))
        self.owned = {n: p for n, p in self.named if n in owned}
        self.master = {n: p.detach().float().clone() for n, p in self.owned.items()}
        self.average = {n: m.clone() for n, m in self.master.items()}
        self.first = {n: torch.zeros_like(m) for n, m in self.master.items()}
        self.second = {n: torch.zeros_like(self.master[n]) for n in self.groups.get((), [])}

    def sum_gradients(self) -> None:
        """Average gradients over processes, in one message. A missing gradient counts as zero."""
        _, world = rank_and_world()
        if world == 1:
            return
        for _, p in self.named:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        grads = [p.grad for _, p in self.named]
        flat = torch._utils._flatten_dense_tensors(grads)
        dist.all_reduce(flat)
        flat /= world
        for (_, p), g in zip(
            self.named, torch._utils._unflatten_dense_tensors(flat, grads), strict=True
        ):
            p.grad = g

    @torch.no_grad()
    def step(self, lr_matrix: float, lr_rest: float) -> None:
        """One update. lr_matrix is multiplied by 0.2 sqrt(max dimension), the root mean square of
        an Adam step.
        """
        self.steps += 1
        self.sum_gradients()
        for shape, names in self.groups.items():
            names = [n for n in names if self.owned[n].grad is not None]
            if shape and names:
                self._matrix_step(shape, names, lr_matrix)
            elif names:
                self._adam_step(names, lr_rest)
        rate = min(self.ema_rate, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.average.values()), list(self.master.values()), 1 - rate)
        self.share()

    def _matrix_step(self, shape: tuple[int, ...], names: list[str], lr: float) -> None:
        grads = [self.owned[n].grad.float() for n in names]  # type: ignore[union-attr]
        moments = [self.first[n] for n in names]
        torch._foreach_lerp_(moments, grads, 0.05)
        look_ahead = torch._foreach_lerp(grads, moments, 0.95)
        stacked = torch.cat([as_matrices(g) for g in look_ahead])
        update = orthogonalise(stacked).float().split(shape[0])
        scale = lr * 0.2 * max(shape[1:]) ** 0.5
        masters = [self.master[n] for n in names]
        torch._foreach_mul_(masters, 1 - lr * self.decay)
        torch._foreach_add_(
            masters,
            [u.reshape(m.shape) for u, m in zip(update, masters, strict=True)],
            alpha=-scale,
        )

    def _adam_step(self, names: list[str], lr: float) -> None:
        grads = [self.owned[n].grad.float() for n in names]  # type: ignore[union-attr]
        first = [self.first[n] for n in names]
        second = [self.second[n] for n in names]
        torch._foreach_lerp_(first, grads, 0.1)
        torch._foreach_lerp_(second, torch._foreach_mul(grads, grads), 0.02)
        root = torch._foreach_sqrt(torch._foreach_div(second, 1 - 0.98**self.steps))
        torch._foreach_add_(root, 1e-8)
        change = torch._foreach_div(torch._foreach_div(first, 1 - 0.9**self.steps), root)
        torch._foreach_add_([self.master[n] for n in names], change, alpha=-lr)

    def gather(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every parameter's value, float32, from the processes that own them."""
        if rank_and_world()[1] == 1:
            return {n: values[n] for n, _ in self.named}
        parts = []
        for name, p in self.named:
            if name in values:
                parts.append(values[name])
            else:
                parts.append(torch.zeros_like(p, dtype=torch.float32))
        flat = torch._utils._flatten_dense_tensors(parts)
        dist.all_reduce(flat)
        names = [name for name, _ in self.named]
        return dict(zip(names, torch._utils._unflatten_dense_tensors(flat, parts), strict=True))

    @torch.no_grad()
    def share(self) -> None:
        """Write the masters into the parameters, on every process."""
        if rank_and_world()[1] == 1:
            torch._foreach_copy_(
                [p for _, p in self.named], [self.master[n] for n, _ in self.named]
            )
            return
        parts = []
        for name, p in self.named:
            if name in self.owned:
                parts.append(self.master[name].to(p.dtype))
            else:
                parts.append(torch.zeros_like(p))
        flat = torch._utils._flatten_dense_tensors(parts)
        dist.all_reduce(flat)
        fresh = torch._utils._unflatten_dense_tensors(flat, parts)
        torch._foreach_copy_([p for _, p in self.named], list(fresh))

    def state(self) -> dict[str, Any]:
        """This process's part; `load` takes the parts of all processes, whatever their number."""
        return {
            "steps": self.steps,
            "master": self.master,
            "average": self.average,
            "first": self.first,
            "second": self.second,
        }

    @torch.no_grad()
    def load(self, states: list[dict[str, Any]]) -> None:
        """Continue from the states of all processes of a run with the same parameters."""
        self.steps = states[0]["steps"]
        for key in ("master", "average", "first", "second"):
            merged: dict[str, Tensor] = {}
            for state in states:
                merged |= state[key]
            own: dict[str, Tensor] = getattr(self, key)
            for name, value in own.items():
                value.copy_(merged[name])
        self.share()
