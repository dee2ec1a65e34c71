"""Optimizers with a schedule, the average of weights, and the step's factor per block."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..models.host_memory import Host
from ..records import BadInput
from .muon import Muon

Named = Iterable[tuple[str, nn.Parameter]]
StatesName = Literal["device", "host", "8bit"]
Moments = Mapping[str, Mapping[str, Any]]  # parameter name -> state of its optimizer


class Optimizers:
    """AdamW, or Muon for matrices and AdamW for the rest, under one learning rate schedule.

    matrices: parameter name -> number of matrices (muon.matrices_of); what is not in it goes to
    AdamW. factors: parameter name -> factor on its steps. The step is scaled and not the gradient,
    since both optimizers undo any factor on a gradient; a factor of 0 belongs in requires_grad.
    schedule: step -> share of the learning rate. at_step: where a resumed run goes on.
    Parameters without a gradient are left alone, weight decay included. states: as
    Stage.optimizer_states; host: where they wait.
    """

    def __init__(
        self,
        named: Named,
        kind: Literal["adamw", "muon"],
        lr: float,
        weight_decay: float,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        matrices: Mapping[str, int] | None = None,
        factors: Mapping[str, float] | None = None,
        schedule: Callable[[int], float] = lambda step: 1.0,
        at_step: int = 0,
        states: StatesName = "device",
        host: Host | None = None,
    ) -> None:
        self.named = dict(named)
        self.names: dict[torch.Tensor, str] = {p: name for name, p in self.named.items()}
        counts = matrices if matrices and kind == "muon" else {}
        self.host = host
        self.states = states
        self.all: list[torch.optim.Optimizer] = []
        for part in self._parts():
            groups = parameter_groups(part, counts, factors or {}, lr)
            for_muon = [group for group in groups if group["matrices"]]
            for_adamw = [group for group in groups if not group["matrices"]]
            if for_muon:
                self.all.append(Muon(for_muon, lr=lr, weight_decay=weight_decay))
            if for_adamw:
                self.all.append(adamw(for_adamw, lr, betas, weight_decay, states))
        self.owners: dict[torch.Tensor, torch.optim.Optimizer] = {}
        for optimizer in self.all:
            for group in optimizer.param_groups:
                self.owners |= dict.fromkeys(group["params"], optimizer)
        self.schedules = [LambdaLR(o, schedule, last_epoch=at_step - 1) for o in self.all]

    def _parts(self) -> list[dict[str, nn.Parameter]]:
        """Parameters that are stepped together: all, or a block's where only its states are on the
        device at a time."""
        if not self.on_host:
            return [self.named]
        parts: dict[str, dict[str, nn.Parameter]] = defaultdict(dict)
        for name, p in self.named.items():
            numbered = re.match(r".*?\.\d+\.", name)  # transformer_blocks.3.
            parts[numbered[0] if numbered else ""][name] = p
        return list(parts.values())

    @property
    def on_host(self) -> bool:
        """Whether the states wait on the host."""
        return self.states == "host" and self.host is not None

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of parameters without a factor."""
        group = self.all[0].param_groups[0]
        return float(group["lr"] / group["factor"])

    def step(self) -> None:
        """One update, then on to the schedule's next learning rate."""
        for optimizer, schedule in zip(self.all, self.schedules, strict=True):
            self._move_states(optimizer, to_host=False)
            optimizer.step()
            self._move_states(optimizer, to_host=True)
            schedule.step()

    def _move_states(self, optimizer: torch.optim.Optimizer, *, to_host: bool) -> None:
        """States of parameters that wait on the host, there or back; counts of steps stay."""
        if not self.on_host:
            return
        for p, values in optimizer.state.items():
            self._move_state(p, values, to_host=to_host)

    def _move_state(self, p: torch.Tensor, values: dict[str, Any], *, to_host: bool) -> None:
        assert self.host is not None
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == p.shape:
                values[key] = self.host.keep(value) if to_host else self.host.back(value)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Moments by the parameter's name, however parameters are grouped."""
        moments = {}
        for optimizer in self.all:
            for p, values in optimizer.state.items():
                moments[self.names[p]] = dict(values)
        return moments

    def load_state(self, name: str, values: Mapping[str, Any]) -> None:
        """Moments of one parameter, which lie where it does; from here on where they belong."""
        p = self.named[name]
        state = dict(values)
        if self.on_host:
            self._move_state(p, state, to_host=True)
        self.owners[p].state[p] = state


def adamw(
    groups: list[dict[str, Any]],
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    states: StatesName,
) -> torch.optim.Optimizer:
    """torch's AdamW, or the one with states of 8 bits (arXiv 2110.02861), which keeps those of
    fewer than 4096 numbers whole.
    """
    if states == "8bit":
        eight_bit = importlib.import_module("bitsandbytes.optim")
        made: torch.optim.Optimizer = eight_bit.AdamW8bit(
            groups, lr=lr, betas=betas, weight_decay=weight_decay
        )
        return made
    # on a GPU torch's usual choice makes copies of all parameters in every step
    fused = all(p.is_cuda for group in groups for p in group["params"])
    return torch.optim.AdamW(
        groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused or None
    )


def check_states(stage: str, states: StatesName, *, shard: bool) -> None:
    """Raises BadInput for states that a stage cannot have here: without their package, or of
    weights that are split between processes.
    """
    if shard and states != "device":
        raise BadInput(
            f"stage {stage!r}: optimizer_states {states} with --shard",
            "optimizer_states: device, which are split between the processes",
            "leave one of them out",
        )
    if states == "8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput(
            f"stage {stage!r}: optimizer_states 8bit without the package bitsandbytes",
            "bitsandbytes, which is not installed",
            "pip install 'dit-workbench[gpu]', or say optimizer_states: host",
        )


def parameter_groups(
    named: Mapping[str, nn.Parameter],
    matrices: Mapping[str, int],
    factors: Mapping[str, float],
    lr: float,
) -> list[dict[str, Any]]:
    """Parameters that are stepped alike; torch's loops over many tensors take one kind."""
    alike: dict[tuple[int, float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, p in named.items():
        alike[matrices.get(name, 0), factors.get(name, 1.0), isinstance(p, DTensor)].append(p)
    return [
        {"params": params, "matrices": count, "factor": factor, "lr": lr * factor}
        | {"initial_lr": lr * factor}
        for (count, factor, _), params in alike.items()
    ]


def lr_share(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Share of the learning rate at a step: linear warm-up, then constant, or linear or half a
    cosine down towards 0.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    if schedule == "linear":
        return 1 - progress
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0


class Average:
    """Exponential moving average of parameters, in float32.

    Young averages follow faster: the rate is min(rate, (1 + n) / (10 + n)) after n updates.
    """

    def __init__(self, named: Named, rate: float) -> None:
        self.named = dict(named)
        self.rate = rate
        self.steps = 0
        self.values = {name: p.detach().float().clone() for name, p in self.named.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        rate = min(self.rate, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        average = get_ema_multi_avg_fn(rate)
        for split in (False, True):
            names = [name for name, p in self.named.items() if isinstance(p, DTensor) == split]
            if names:
                now = [self.named[name].detach().float() for name in names]
                average([self.values[name] for name in names], now, self.steps)

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


def block_factors(
    scores: Mapping[str, float],
    kind: Literal["inverse-sensitivity", "binary"],
    unlimited: Iterable[str] = (),
) -> dict[str, float]:
    """Factor on the steps of each block from its sensitivity: the higher, the less it moves.

    SGDistill (HierarchicalPrune, arXiv 2508.04663) scales by 1 / sensitivity and says no more;
    ours: median / score, at most 1. Its released code has a list of blocks that train; `binary`
    takes those up to the median. Blocks in `unlimited` move in full.
    """
    if not scores:
        return {}
    median = sorted(scores.values())[(len(scores) - 1) // 2]
    factors = {}
    for block, score in scores.items():
        if score <= median:
            factors[block] = 1.0
        elif kind == "binary":
            factors[block] = 0.0
        else:
            factors[block] = max(median, 0.0) / score
    for block in unlimited:
        if block in factors:
            factors[block] = 1.0
    return factors
