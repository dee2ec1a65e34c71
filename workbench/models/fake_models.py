"""Models without memory: torch's fake tensors have shapes, dtypes and a device, and no numbers.

The very code that trains or scans a model runs on them, at full size, on any machine. What it asks
of a number (a loss, whether a gradient is finite) is answered with 1 and yes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from .. import students
from ..families import by_class, is_hybrid
from ..specs.teacher_weights import AS_LOADED
from .access import quiet
from .host_memory import Host
from .memory_use import HOST, MemoryUse
from .packed_weights import Packed
from .streaming import Place, Stream
from .unloaded import placeholder

_ATEN = torch.ops.aten
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
# What autocast on a GPU computes in float32 and autocast on a CPU does not, of what such models use
# (torch's list: docs.pytorch.org/docs/stable/amp.html).
IN_FLOAT32 = ("layer_norm", "group_norm", "softmax.int", "rsqrt", "pow.Tensor_Scalar")


class FakeRun:
    """A place where fake models run: enter `running()`, make models with `model`.

    on_gpu: count what a GPU would, whose autocast computes norms in float32.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.memory = MemoryUse()

    @contextmanager
    def running(self) -> Iterator[MemoryUse]:
        with ExitStack() as stack:
            stack.enter_context(self.fake)
            stack.enter_context(self.memory)
            stack.enter_context(Answers())
            if self.on_gpu:
                stack.enter_context(gpu_autocast())
            yield self.memory

    def model(self, config: Mapping[str, Any], dtype: torch.dtype, kind: str) -> nn.Module:
        """A transformer of this config, in eval mode; its weights are counted as `kind`."""
        with _disable_current_modes(), torch.device("meta"), quiet():
            model = class_of(config).from_config(dict(config)).eval()
        with self.running() as memory:
            for module in model.modules():
                for name, p in list(module._parameters.items()):
                    if p is not None:
                        module._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=dtype))
                for name, b in list(module._buffers.items()):
                    if b is not None:
                        wide = dtype if b.is_floating_point() else b.dtype
                        module._buffers[name] = torch.empty(b.shape, dtype=wide)
            memory.name_model(model, kind)
        return model

    def streamed_model(
        self, config: Mapping[str, Any], dtype: torch.dtype, kind: str, weights: str = AS_LOADED
    ) -> nn.Module:
        """The same with blocks that are streamed from the host, or packed (`weights`) and unpacked
        as they run.
        """
        model = self.model(config, dtype, kind)
        with self.running() as memory:
            stream = FakeStream(model, memory, kind)
            if weights != AS_LOADED:
                stream.pack(weights, frozenset(getattr(model, "_keep_in_fp32_modules", None) or ()))
            stream.let_go()
            stream.stream_blocks()
        return model

    def follow_threads(self, model: nn.Module) -> None:
        """Forwards in other threads, one of which runs at a time (models.lockstep), are seen too."""
        forward = model.forward
        home = threading.get_ident()

        def seen(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == home:
                return forward(*args, **kwargs)
            with self.fake, InThread(self.memory), Answers():
                return forward(*args, **kwargs)

        model.forward = seen

    def faked(self, value: Any) -> Any:
        """The same with fake tensors for real ones."""
        return tree_map(self._fake_tensor, value)

    def _fake_tensor(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        with self.fake:
            return torch.empty(value.shape, dtype=value.dtype)


class InThread(TorchDispatchMode):
    """Shows a run's memory what another thread makes."""

    def __init__(self, memory: MemoryUse) -> None:
        super().__init__()
        self.memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.memory.__torch_dispatch__(func, types, args, kwargs)


class FakeStream(Stream):
    """Blocks without memory that come and go as those of a checkpoint, read ahead included, in the
    calling thread: the modes that see tensors are one thread's.
    """

    def __init__(self, model: nn.Module, memory: MemoryUse, kind: str) -> None:
        super().__init__(model, None)
        self.memory = memory
        self.kind = kind

    def __deepcopy__(self, memo: Any) -> FakeStream:
        """A copy of a fake block's parameters has all their attributes, and so its stream."""
        return self

    def submit(self, place: Place) -> Future[dict[str, torch.Tensor]]:
        future: Future[dict[str, torch.Tensor]] = Future()
        future.set_result(self._read(place))
        return future

    def stored(self, name: str, p: nn.Parameter) -> torch.Tensor:
        tensor = torch.empty(p.shape, dtype=p.dtype)
        self.memory.name([tensor], self.kind)
        return tensor

    def pack(self, weights: str, in_float32: frozenset[str]) -> None:
        super().pack(weights, in_float32)
        for block in self.packed.values():
            for held in block.values():
                tensors = held.tensors if isinstance(held, Packed) else [held]
                self.memory.name(tensors, self.kind)

    def let_go(self) -> None:
        """No block is in memory yet."""
        for parameters in self.blocks.values():
            for p in parameters.values():
                p.data = placeholder(p.shape, p.dtype, p.device)

    def _read(self, place: Place) -> dict[str, torch.Tensor]:
        tensors = super()._read(place)
        self.memory.name(tensors.values(), self.kind)
        return tensors


class CountedHost(Host):
    """A host whose tensors are counted apart from the device's; all are on one fake device."""

    def __init__(self, memory: MemoryUse) -> None:
        super().__init__(torch.device("cpu"), apart=True)
        self.memory = memory
        self.kinds: dict[int, str] = {}  # of what came from the device, by its storage here

    def keep(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        kind = self.memory.kind_of(tensor)
        with self.memory.on_host():
            kept = tensor.detach().to(dtype=dtype or tensor.dtype, copy=True)
        self.kinds[kept.untyped_storage()._cdata] = kind
        return kept

    def back(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        here = self.memory.kind_of(tensor) != HOST
        kind = self.kinds.get(tensor.untyped_storage()._cdata, "student")
        fetched = tensor.detach().to(dtype=dtype or tensor.dtype, copy=not here)
        if not here:
            self.memory.name([fetched], kind if kind != HOST else "student")
        return fetched


def class_of(config: Mapping[str, Any]) -> Any:
    """The class that builds a config: a stock one, or this package's for custom blocks."""
    name = str(config["_class_name"])
    family = by_class(name)
    return students.student_class(family.name) if is_hybrid(name) else students.stock_class(family)


class Answers(TorchDispatchMode):
    """What a fake tensor cannot say: a number is 1 (a flag is true), two tensors are equal."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ATEN._local_scalar_dense.default:
            return _one(args[0].dtype)
        if func is _ATEN.equal.default:
            return True
        return func(*args, **(kwargs or {}))


def _one(dtype: torch.dtype) -> bool | int | float:
    if dtype is torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


@contextmanager
def gpu_autocast() -> Iterator[None]:
    """Under a CPU's autocast: norms and the like in float32, as under a GPU's."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for name in IN_FLOAT32:
            library.impl(name, in_float32(name), "AutocastCPU")
        yield
    finally:
        library._destroy()


def in_float32(name: str) -> Callable[..., torch.Tensor]:
    """An operator for autocast that takes its tensors in float32."""
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(_ATEN, packet), overload or "default")

    def run(*args: Any, **kwargs: Any) -> torch.Tensor:
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            return cast(torch.Tensor, operator(*[_wide(value) for value in args], **kwargs))

    return run


def _wide(value: Any) -> Any:
    narrow = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if narrow else value
