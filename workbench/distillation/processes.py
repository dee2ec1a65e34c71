"""Several processes that train one student: each takes its part of every batch, and losses and
gradients are sums over all.

The processes are set up by accelerate (which chooses gloo or NCCL, and the device). The blocks are
called one by one, so that neither DDP nor accelerate's own FSDP, which hook into the whole model's
forward, fits: gradients are summed here, and sharding is torch's FSDP2 on each block, every block
its own root. accelerate 1.15 leaves FSDP out on CPUs; this does not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import PartialState
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ..models import blocks_of
from ..training.muon import split_as


@dataclass(frozen=True)
class Processes:
    """This process among `world`; the default is alone.

    sharded: blocks are split between them (FSDP2). mesh: torch's description of them; None: its own.
    """

    rank: int = 0
    world: int = 1
    sharded: bool = False
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        return self.rank, self.world

    # --- sums

    @property
    def add(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Sums a small tensor over the processes; None where there is but one."""
        return self._add if self.world > 1 else None

    def _add(self, value: torch.Tensor) -> torch.Tensor:
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def summed(self, values: Sequence[float]) -> list[float]:
        if self.world == 1 or not values:
            return list(values)
        return self._add(torch.tensor(values, dtype=torch.float64, device=_device())).tolist()

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return flag if self.world == 1 else self.summed([float(flag)])[0] > 0

    def least(self, value: float) -> float:
        """The smallest of all processes' values."""
        if self.world == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(held, dist.ReduceOp.MIN)
        return float(held)

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()

    def clip(self, params: list[nn.Parameter], limit: float) -> float:
        """Sum the gradients over the processes and scale them down to the norm `limit`.

        Returns the norm they had. One that is not finite leaves them as they are, so that they show
        where it came from.
        """
        grads = [p.grad for p in params if p.grad is not None]
        if self.world == 1:
            total = nn.utils.get_total_norm(grads)
            if total.isfinite():
                nn.utils.clip_grads_with_norm_(params, limit, total)
            return float(total)
        whole = [g for g in grads if not isinstance(g, DTensor)]
        for bucket in _buckets(whole):
            _sum_in_one_message(bucket)
        own = [g.to_local() for g in grads if isinstance(g, DTensor)]
        if own:
            # FSDP left the mean, and each loss is a share of the whole
            torch._foreach_mul_(own, float(self.world))
        norm = float((self._add(_squares(own)) + _squares(whole)).sqrt())
        if limit < norm < math.inf:
            torch._foreach_mul_([*whole, *own], limit / (norm + 1e-6))
        return norm

    # --- sharding

    def shard(self, model: nn.Module) -> None:
        """Split each block between the processes; what is outside the blocks stays whole in each."""
        if not self.sharded:
            return
        for stack in blocks_of(model).values():
            for block in stack:
                if not isinstance(block, FSDPModule):
                    fully_shard(block, mesh=self.mesh, reshard_after_forward=True)

    def train(
        self, model: nn.Module, params: Mapping[str, nn.Parameter]
    ) -> dict[str, nn.Parameter]:
        """Let these parameters have gradients and no others; returns them as they now are.

        FSDP keeps the flags of gathered and split parameters apart, so both are set.
        """
        blocks = [block for block in model.modules() if isinstance(block, FSDPModule)]
        if blocks:
            for block in blocks:
                block.unshard()
            _set_trainable(model, params)
            for block in blocks:
                block.reshard()
        _set_trainable(model, params)
        return {name: p for name, p in model.named_parameters() if name in params}

    # --- whole tensors in and out

    def whole(self, value: Any) -> Any:
        """The same with split tensors gathered in the first process's host memory.

        The other processes must take part and get empty tensors. One tensor after the other, so
        that no device ever holds more than one of another's.
        """
        if isinstance(value, DTensor):
            gathered = value.full_tensor()
            return gathered.cpu() if self.first else gathered.new_empty(0)
        if isinstance(value, Mapping):
            return {key: self.whole(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.whole(item) for item in value)
        return value

    def state(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The model's state with whole tensors, as `whole` has them."""
        return self.whole(model.state_dict())

    def like(self, value: Any, other: torch.Tensor) -> Any:
        """A whole tensor of `other`'s shape, on its device and split as it is; else the value."""
        if not isinstance(value, torch.Tensor) or value.shape != other.shape or not value.ndim:
            return value
        value = value.to(other.device)
        return split_as(value, other)

    @torch.no_grad()
    def load(self, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        if not self.sharded:
            for name, p in model.named_parameters():
                p.data = p.data.to(state[name].dtype)
            model.load_state_dict(state)
            return
        for name, value in model.state_dict().items():
            value.copy_(self.like(state[name].to(value.dtype), value))


ALONE = Processes()


def _set_trainable(model: nn.Module, names: Container[str]) -> None:
    for name, p in model.named_parameters():
        p.requires_grad_(name in names)


def _squares(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum of the squares of all numbers, a scalar."""
    return sum((t.float().square().sum() for t in tensors), torch.zeros((), device=_device()))


def _sum_in_one_message(tensors: list[torch.Tensor]) -> None:
    """Sum tensors of one dtype over the processes, in place."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    shaped = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
    torch._foreach_copy_(tensors, shaped)


def _buckets(tensors: Sequence[torch.Tensor], numbers: int = 2**24) -> Iterator[list[torch.Tensor]]:
    """Tensors of one dtype, some 64 MiB at a time.

    A sum over the network for each would cost more than the numbers it moves.
    """
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        full = size + tensor.numel() > numbers
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
            size = 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor lies in this process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _device() -> torch.device:
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextmanager
def joined(
    rank: int,
    world: int,
    address: str,
    device: str,
    *,
    sharded: bool = False,
    timeout: float = 1800.0,
) -> Iterator[Processes]:
    """Meet the other processes at `address` (host:port) and leave them in the end.

    timeout: seconds to wait for one that is late or stuck. Variables that a launcher has set (RANK,
    WORLD_SIZE, MASTER_ADDR ..) mean the same thing: give what they say.
    """
    PartialState._reset_state()
    with environment(rendezvous(rank, world, address, device)):
        try:
            state = PartialState(cpu=device == "cpu", timeout=timedelta(seconds=timeout))
            if state.num_processes != world:  # accelerate falls back to one process in silence
                raise RuntimeError(f"{state.num_processes} processes met, {world} were started")
            yield Processes(rank, world, sharded)
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            PartialState._reset_state()


def rendezvous(rank: int, world: int, address: str, device: str) -> dict[str, str]:
    """The variables by which torch and accelerate find the other processes."""
    host, _, port = address.rpartition(":")
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": os.environ.get("LOCAL_RANK", str(rank)),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": os.environ.get("LOCAL_WORLD_SIZE", str(world)),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": str(device == "cpu").lower(),
    }
    if host == "127.0.0.1":
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    return variables


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """These environment variables for a while; what else is in the environment is not touched."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
