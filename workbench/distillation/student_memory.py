"""Where a student's weights lie while a stage trains some of them, and in how many bits.

What trains is on the device in float32. The rest is held in bfloat16 where that loses nothing,
which it does not for weights that came from a checkpoint in bfloat16 and have not been trained.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from ..models import blocks_of, family_of
from ..models.host_memory import Host
from ..models.packed_weights import packable
from ..models.streaming import HELD


class StudentMemory:
    """One student's weights, as the stages of a run need them. host: where blocks wait that a stage
    does not run.
    """

    def __init__(self, student: nn.Module, host: Host) -> None:
        self.student = student
        self.host = host
        self.waiting: list[WaitingBlock] = []

    @torch.no_grad()
    def arrange(
        self,
        trained: Collection[str],
        *,
        runs_whole: bool,
        narrow: bool = False,
        lent: Collection[str] = (),
    ) -> None:
        """Bring the student's weights to where a stage needs them.

        trained: names of parameters that train. runs_whole: whether frozen blocks run; then they
        are on the device, the weights of their linears in bfloat16 where the stage computes in it
        (narrow). Else they wait on the host. lent: names of parameters that lie in a teacher's memory.
        """
        self.release()
        always = HELD.get(family_of(self.student).name, ())
        rest = dict(self.student.named_parameters())
        for path, stack in blocks_of(self.student).items():
            for number, block in enumerate(stack):
                prefix = f"{path}.{number}."
                named = {f"{prefix}{name}": rest.pop(f"{prefix}{name}") for name in names_in(block)}
                trains = not named.keys().isdisjoint(trained)
                if runs_whole or trains or (path, number) in always:
                    self._hold(block, prefix, named, trained, narrow)
                else:
                    own = [p for name, p in named.items() if name not in lent]
                    self.waiting.append(WaitingBlock(block, own, self.host))
        for p in rest.values():
            p.data = self.host.back(p.data, torch.float32)
        for buffer in self.student.buffers():
            buffer.data = self.host.back(buffer.data)

    def _hold(
        self,
        block: nn.Module,
        prefix: str,
        named: dict[str, nn.Parameter],
        trained: Collection[str],
        narrow: bool,
    ) -> None:
        """A block on the device. Only linears' weights are narrow: autocast casts these anyway."""
        in_float32 = frozenset(getattr(self.student, "_keep_in_fp32_modules", None) or ())
        casts = {prefix + name for name in packable(block, in_float32)} if narrow else set()
        for name, p in named.items():
            frozen = name in casts and name not in trained
            p.data = self.host.back(p.data, narrowest(p) if frozen else torch.float32)

    @torch.no_grad()
    def bring(self, block: nn.Module) -> None:
        """One block on the device, in float32."""
        for p in block.parameters():
            p.data = self.host.back(p.data, torch.float32)

    @torch.no_grad()
    def send(self, block: nn.Module) -> None:
        """One block to the host, until a stage arranges it."""
        for p in block.parameters():
            p.data = self.host.keep(p.data)

    def release(self) -> None:
        """Blocks that wait stay where they are, and are not fetched any more when they run."""
        for block in self.waiting:
            block.release()
        self.waiting = []


class WaitingBlock:
    """A frozen block whose own parameters are on the host. One that runs all the same (when someone
    looks at the student's pictures) fetches them for its forward.
    """

    def __init__(self, block: nn.Module, own: Iterable[nn.Parameter], host: Host) -> None:
        self.host = host
        self.kept = {p: host.keep(p.data, narrowest(p)) for p in own}
        self._leave()
        self.handles = [
            block.register_forward_pre_hook(self._fetch),
            block.register_forward_hook(self._leave, always_call=True),
        ]

    def release(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _fetch(self, *_: Any) -> None:
        for p, value in self.kept.items():
            p.data = self.host.back(value, torch.float32)

    def _leave(self, *_: Any) -> None:
        for p, value in self.kept.items():
            p.data = value


def names_in(block: nn.Module) -> list[str]:
    return [name for name, _ in block.named_parameters()]


def narrowest(p: torch.Tensor) -> torch.dtype:
    """bfloat16 where that has the same values, else the dtype it has."""
    if p.dtype == torch.float32 and torch.equal(p.bfloat16().float(), p):
        return torch.bfloat16
    return p.dtype
