"""Which tensors are alive while something runs: their bytes by kind, the peak, and the operations.

Counted are storages, from the operator that first returns one until it is freed; buffers inside an
operator are not seen. torch's own MemTracker does the same from module hooks. It fits no loop that
ends forwards early and calls single blocks, as the distillation does, so the kinds are given here by
whoever knows them: weights by their modules, gradients and moments by hooks.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

OTHER = "activations"  # what nobody has named: states, casts, buffers
HOST = "host"  # what does not lie on the device: counted by itself, in no total
_ATEN = torch.ops.aten


class MemoryUse(TorchDispatchMode):
    """Counts live bytes by kind while it is entered.

    now: bytes by kind. peak: the most bytes at any moment; at_peak: their kinds. flops: of matrix
    products, convolutions and attention, multiply-adds counted twice, since `flops` was last set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.total = 0
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self.flops = 0
        self.kinds: dict[int, str] = {}  # of live storages
        self.sizes: dict[int, int] = {}
        self.usual = OTHER  # the kind of what is new

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """What is made meanwhile lies on the host."""
        self.usual = HOST
        try:
            yield
        finally:
            self.usual = OTHER

    def kind_of(self, tensor: torch.Tensor) -> str:
        return self.kinds.get(_inner(tensor)[0].untyped_storage()._cdata, OTHER)

    def name(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Say what tensors are; whatever they were counted as before."""
        for tensor in tensors:
            self._see(tensor, kind)

    def name_model(self, model: nn.Module, kind: str) -> None:
        self.name([*model.parameters(), *model.buffers()], kind)

    def name_gradients(self, model: nn.Module, kind: str = "gradients") -> None:
        """Name the gradients of a model's parameters as soon as they are there, from now on."""

        def take(p: torch.Tensor) -> None:
            if p.grad is not None:
                self.name([p.grad], kind)

        for p in model.parameters():
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(take)

    def name_moments(self, optimizer: torch.optim.Optimizer, kind: str = "optimizer") -> None:
        """Name an optimizer's state after each of its steps."""

        def take(*_: Any) -> None:
            leaves = tree_leaves(list(optimizer.state.values()))
            self.name([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)], kind)

        optimizer.register_step_post_hook(take)

    def take_peak_anew(self) -> None:
        """Forget the peak so far: what is alive now is the most."""
        self.peak = self.total
        self.at_peak = dict(self.now)

    # --- storages ---------------------------------------------------------------------------------

    def _see(self, tensor: torch.Tensor, kind: str | None = None) -> None:
        for part in _inner(tensor):
            storage = part.untyped_storage()
            key = storage._cdata
            if key not in self.kinds:
                self.kinds[key] = kind or self.usual
                self.sizes[key] = 0
                weakref.finalize(storage, self._forget, key)
                self._resize(key, storage.nbytes())
            elif kind and self.kinds[key] != kind:
                size = self.sizes[key]
                self._resize(key, 0)
                self.kinds[key] = kind
                self._resize(key, size)

    def _resize(self, key: int, size: int) -> None:
        self.now[self.kinds[key]] += size - self.sizes[key]
        self.total += 0 if self.kinds[key] == HOST else size - self.sizes[key]
        self.sizes[key] = size
        if self.total > self.peak:
            self.take_peak_anew()

    def _forget(self, key: int) -> None:
        if key in self.kinds:
            self._resize(key, 0)
            del self.kinds[key], self.sizes[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self._see(value)
        self.flops += flops_of(func, args, kwargs, out)
        return out

    def __enter__(self) -> MemoryUse:
        self._resized = resizes_seen_by(self)
        self._resized.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._resized.__exit__(*error)


def _inner(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold a tensor's numbers in this process."""
    return [tensor._local_tensor] if isinstance(tensor, DTensor) else [tensor]


@contextmanager
def resizes_seen_by(use: MemoryUse) -> Iterator[None]:
    """FSDP frees and takes the memory of gathered weights by resizing their storages, which no
    operator shows."""
    original = torch.UntypedStorage.resize_

    def resize(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
        answer = original(storage, size)
        if storage._cdata in use.kinds:
            use._resize(storage._cdata, size)
        return answer

    torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = original  # type: ignore[method-assign]


# --- operations -----------------------------------------------------------------------------------


def flops_of(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Operations of one call, by torch's formulas; 0 for what has none.

    Attention's operators for CPUs are not in torch's table.
    """
    operator = getattr(func, "_overloadpacket", None)
    if operator is _ATEN._scaled_dot_product_flash_attention_for_cpu:
        return int(sdpa_flop_count(*[tensor.shape for tensor in args[:3]]))
    if operator is _ATEN._scaled_dot_product_flash_attention_for_cpu_backward:
        return int(sdpa_backward_flop_count(*[tensor.shape for tensor in args[:4]]))
    count = flop_registry.get(operator)
    return 0 if count is None else int(count(*args, **kwargs, out_val=out))
