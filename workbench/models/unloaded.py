"""A transformer without its weights: class, config, shapes, dtypes and device are there, and every
parameter is one NaN that is seen in the parameter's shape.

Weights are filled in later, all of them or block by block. Whatever reads a weight too early gets
NaN, which every verb refuses, and never other numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ..records import BadInput
from .access import quiet
from .checkpoints import Reader
from .folders import read_config

READ_WHOLE = "choose --placement whole and --teacher-weights as-loaded"


def unloaded_transformer(
    cls: Any, folder: Path, *, device: torch.device, dtype: torch.dtype
) -> ModelMixin:
    """The transformer of a folder in eval mode, every parameter a placeholder on the device, in the
    dtype that `from_pretrained(dtype=dtype)` gives it.
    """
    config = read_config(folder / "config.json")
    with init_empty_weights(include_buffers=False), quiet():
        model: ModelMixin = cls.from_config(config)
    for name, parameter in list(model.named_parameters()):
        own_dtype = stored_dtype(model, name, parameter.dtype, dtype)
        empty = placeholder(parameter.shape, own_dtype, device)
        set_parameter(model, name, nn.Parameter(empty, requires_grad=False))
    stored = model.state_dict().keys()
    for prefix, module in model.named_modules():
        for last, buffer in module._buffers.items():
            if buffer is None:
                continue
            name = f"{prefix}.{last}" if prefix else last
            own_dtype = buffer.dtype
            if name in stored:
                own_dtype = stored_dtype(model, name, own_dtype, dtype)
            module._buffers[last] = buffer.to(device, own_dtype)
    model.eval()
    return model


def placeholder(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of this shape that takes the memory of one number, NaN."""
    value = float("nan") if dtype.is_floating_point else 0
    return torch.full((), value, dtype=dtype, device=device).expand(shape)


def set_parameter(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, last = name.rpartition(".")
    model.get_submodule(path)._parameters[last] = parameter


# --- dtypes, as diffusers' from_pretrained chooses them -------------------------------------------


def stored_dtype(model: nn.Module, name: str, own: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """Some modules stay in float32 whatever the dtype; so do buffers that are not stored."""
    if not own.is_floating_point:
        return own
    wide = getattr(model, "_keep_in_fp32_modules", None) or ()
    return torch.float32 if set(wide) & set(name.split(".")) else dtype


# --- weights --------------------------------------------------------------------------------------


def check_names(model: nn.Module, reader: Reader, folder: Path) -> None:
    """Refuse a checkpoint whose tensors are not named as the model's: diffusers renames those of
    old ones as it loads.
    """
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ reader.tensors.keys()):
        lacks = "lacks" if name in expected else "has an unknown tensor"
        raise BadInput(f"{folder} {lacks} {name}", "the tensors of its class", READ_WHOLE)
    for name, tensor in expected.items():
        if tuple(tensor.shape) != reader.tensors[name].shape:
            found = f"{folder}: {name} has the shape {list(reader.tensors[name].shape)}"
            raise BadInput(found, str(list(tensor.shape)), READ_WHOLE)


def fill(model: nn.Module, reader: Reader, names: Iterable[str]) -> None:
    """Read parameters and persistent buffers for good."""
    slots = dict(model.named_parameters()) | dict(model.named_buffers())
    for name in names:
        slot = slots[name]
        slot.data = read(reader, name, slot.dtype).to(slot.device)


def read(reader: Reader, name: str, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of the checkpoint on the CPU."""
    return reader.tensor(name).to(dtype)
