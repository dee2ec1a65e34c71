"""A transformer whose blocks are in memory while they run.

The weights outside the blocks are held. A block's are read from the checkpoint when its forward
begins and let go when it ends; meanwhile one thread reads the block that comes next. On a GPU they
come from pinned memory of the host, where that has room for all blocks. Of a teacher with packed
weights they are unpacked from the device's own memory (packed_weights).

diffusers' group offloading and accelerate's disk offloading read weights in hooks around a module's
call. Here a block may be bypassed or replayed, which must read nothing, and its weights are also
taken outside its forward, to make an edited block: so reading belongs to the parameters.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.utils._pytree import tree_leaves

from ..records import BadInput
from ..specs.teacher_weights import AS_LOADED
from .access import blocks_of, family_of
from .checkpoints import Reader
from .packed_weights import Packed, packable, packed
from .unloaded import check_names, fill, placeholder, read, unloaded_transformer

Place = tuple[str, int]
Forward = Callable[..., Any]
# DiT's own forward uses the embedding in its first block once more behind the last one.
HELD: dict[str, tuple[Place, ...]] = {"dit": (("transformer_blocks", 0),)}
SOURCE = "_streamed_from"  # attribute of a streamed parameter: (its Stream, its block's place)


def streamed_transformer(
    cls: Any,
    folder: Path,
    *,
    device: str,
    dtype: torch.dtype,
    on_host: bool = False,
    weights: str = AS_LOADED,
) -> ModelMixin:
    """The transformer of a folder, in eval mode and frozen, its blocks streamed. It computes what a
    loaded one does, bit for bit.

    on_host: keep the blocks in pinned memory of the host; else they are read from the disk again
    each time. weights: of specs.teacher_weights; where they are packed, all blocks are read once,
    stay on the device in fewer bits, and are unpacked as they run. Raises BadInput for a checkpoint
    whose tensors are not named as the class's.
    """
    model = unloaded_transformer(cls, folder, device=torch.device(device), dtype=dtype)
    reader = Reader(folder)
    check_names(model, reader, folder)
    stream = Stream(model, reader, on_host)
    if weights != AS_LOADED:
        stream.pack(weights, frozenset(getattr(model, "_keep_in_fp32_modules", None) or ()))
    fill(model, reader, stream.names_outside(model))
    stream.stream_blocks()
    return model


def is_streamed(module: nn.Module) -> bool:
    return any(hasattr(p, SOURCE) for p in module.parameters())


class Stream:
    """The blocks of one transformer, and which of them are in memory.

    loads: blocks read so far. most: the most blocks in memory at once, the one that is read ahead
    not counted.
    """

    def __init__(self, model: nn.Module, reader: Reader | None, on_host: bool = False) -> None:
        self.reader = reader
        self.on_host = on_host
        self.device = next(model.parameters()).device
        if self.device.type == "cuda":
            self.copies = torch.cuda.Stream(self.device)
        self.blocks: dict[Place, dict[str, nn.Parameter]] = {}  # by the name in the checkpoint
        self.modules: list[nn.Module] = []
        for path, stack in blocks_of(model).items():
            for number, block in enumerate(stack):
                place = (path, number)
                if place in HELD.get(family_of(model).name, ()):
                    continue
                self.modules.append(block)
                prefix = f"{path}.{number}."
                self.blocks[place] = {prefix + name: p for name, p in block.named_parameters()}
                for p in block.parameters():
                    setattr(p, SOURCE, (self, place))
        self.order = list(self.blocks)
        self.uses: Counter[Place] = Counter()
        self.ahead: dict[Place, Future[dict[str, torch.Tensor]]] = {}
        self.host: dict[Place, dict[str, torch.Tensor]] = {}
        self.packed: dict[Place, dict[str, Packed | torch.Tensor]] = {}
        self.worker = ThreadPoolExecutor(1, "read-ahead")
        self.loads = 0
        self.most = 0

    def pack(self, weights: str, in_float32: frozenset[str]) -> None:
        """Hold all blocks on the device from now on, their linears in fewer bits."""
        for place, block in zip(self.order, self.modules, strict=True):
            chosen = {f"{place[0]}.{place[1]}.{name}" for name in packable(block, in_float32)}
            held: dict[str, Packed | torch.Tensor] = {}
            for name, p in self.blocks[place].items():
                tensor = self.stored(name, p).to(self.device)
                held[name] = packed(tensor, weights) if name in chosen else tensor
            self.packed[place] = held

    def names_outside(self, model: nn.Module) -> list[str]:
        """Names of what is held: parameters outside the blocks, and all persistent buffers."""
        streamed: set[str] = set()
        for parameters in self.blocks.values():
            streamed.update(parameters)
        return [name for name in model.state_dict() if name not in streamed]

    @contextmanager
    def held(self, place: Place, read_ahead: bool = False) -> Iterator[None]:
        """The block's weights in memory."""
        self._take(place)
        try:
            if read_ahead:
                self._read_ahead(self.following(place))
            yield
        finally:
            self._release(place)

    def following(self, place: Place) -> Place:
        """The block that runs next; after the last one the first: of the next forward."""
        return self.order[(self.order.index(place) + 1) % len(self.order)]

    def stored(self, name: str, p: nn.Parameter) -> torch.Tensor:
        """A parameter of the checkpoint, on the CPU. name: in the checkpoint."""
        assert self.reader is not None
        return read(self.reader, name, p.dtype)

    def stream_blocks(self) -> None:
        """Let the blocks' forwards read their weights from now on."""
        for block in self.modules:
            cls_of_block: Any = type(block)
            block.__class__ = streamed_class(cls_of_block)

    # --- inside -----------------------------------------------------------------------------------

    def submit(self, place: Place) -> Future[dict[str, torch.Tensor]]:
        """Begin to read a block."""
        return self.worker.submit(self._read, place)

    def _take(self, place: Place) -> None:
        if self.uses[place]:
            self.uses[place] += 1
            return
        future = self.ahead.pop(place, None) or self.submit(place)
        for name, tensor in future.result().items():
            if tensor.is_cuda:  # made by the copies' stream, used by this one
                tensor.record_stream(torch.cuda.current_stream(tensor.device))
            self.blocks[place][name].data = tensor
        self.uses[place] += 1
        self.loads += 1
        self.most = max(self.most, sum(count > 0 for count in self.uses.values()))

    def _release(self, place: Place) -> None:
        self.uses[place] -= 1
        if self.uses[place]:
            return
        for p in self.blocks[place].values():
            p.data = placeholder(p.shape, p.dtype, p.device)

    def _read_ahead(self, place: Place) -> None:
        if place in self.ahead or self.uses[place]:
            return
        for stale in list(self.ahead):
            self.ahead.pop(stale).cancel()
        self.ahead[place] = self.submit(place)

    def _read(self, place: Place) -> dict[str, torch.Tensor]:
        """A block's weights on the device; runs in the worker's thread."""
        if self.packed:
            return self._unpacked(place)
        tensors = self.host.get(place) or self._from_disk(place)
        if self.device.type != "cuda":
            return tensors
        with torch.cuda.stream(self.copies):
            moved = {n: tensor.to(self.device, non_blocking=True) for n, tensor in tensors.items()}
        self.copies.synchronize()
        return moved

    def _unpacked(self, place: Place) -> dict[str, torch.Tensor]:
        with ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(torch.cuda.stream(self.copies))
            tensors = {}
            for name, held in self.packed[place].items():
                dtype = self.blocks[place][name].dtype
                tensors[name] = held.unpacked(dtype) if isinstance(held, Packed) else held
        if self.device.type == "cuda":
            self.copies.synchronize()
        return tensors

    def _from_disk(self, place: Place) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, p in self.blocks[place].items():
            tensor = self.stored(name, p)
            tensors[name] = tensor.pin_memory() if self.on_host else tensor
        if self.on_host:
            self.host[place] = tensors
        return tensors


# --- weights of modules ---------------------------------------------------------------------------


@contextmanager
def loaded(*modules: nn.Module, read_ahead: bool = False) -> Iterator[None]:
    """The weights of these modules in memory, where they are streamed; else nothing is done.

    Modules made over the parameters of streamed blocks count as these.
    """
    sources: dict[tuple[Stream, Place], None] = {}
    for module in modules:
        for p in module.parameters():
            if hasattr(p, SOURCE):
                sources[getattr(p, SOURCE)] = None
    with ExitStack() as stack:
        for stream, place in sources:
            stack.enter_context(stream.held(place, read_ahead))
        yield


def forward_of(block: nn.Module) -> Forward:
    """The block's forward, with the weights in memory that it shares with streamed blocks."""
    forward: Forward = block.forward
    if not is_streamed(block):
        return forward

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        with loaded(block, read_ahead=True):
            return checked(forward(*args, **kwargs))

    return run


@functools.cache
def streamed_class(cls: Any) -> Any:
    """A block's class whose forward reads the weights first.

    A class and not an attribute of the object: a copy of the object would run the first one's.
    """
    original = cls.forward

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not is_streamed(self):  # a copy with weights of its own
            return original(self, *args, **kwargs)
        with loaded(self, read_ahead=True):
            return checked(original(self, *args, **kwargs))

    content = {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), content)


def checked(output: Any) -> Any:
    """Raises BadInput where a backward would need weights that are gone by then."""
    for value in tree_leaves(output):
        if isinstance(value, torch.Tensor) and value.requires_grad:
            raise BadInput(
                "a gradient through a block that is streamed",
                "a model that is held whole",
                "choose --placement whole",
            )
    return output
