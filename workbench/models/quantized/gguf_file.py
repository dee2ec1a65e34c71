"""GGUF files of a transformer, under diffusers' own names: written and read with the library gguf.

diffusers takes each tensor that is neither F32 nor F16 for the weight of a linear, so linears that
are not quantised are stored as BF16 and everything else as F32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ...records import BadInput
from ..file_io import sync_folder
from ..headers import STEM

NAME = f"{STEM}.gguf"
KINDS = {"gguf-q8_0": "Q8_0", "gguf-q4_0": "Q4_0"}
MOST_DIMENSIONS = 4  # of a GGUF tensor


def library() -> ModuleType:
    """The gguf package. Raises BadInput where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise BadInput(
            "the package gguf is not installed",
            "it, to write and to read GGUF files",
            "pip install 'dit-workbench[gguf]'",
        ) from None
    module: ModuleType = gguf
    return module


def write(
    path: Path,
    arch: str,
    kinds: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    tensor_of: Callable[[str], torch.Tensor],
) -> Iterator[str]:
    """Write a GGUF file, one tensor in memory at a time; yields each tensor's name before it is
    written. kinds: name -> F32, BF16, Q8_0 or Q4_0.
    """
    gguf = library()
    writer = open_writer(path, arch, kinds, shapes)
    for name, kind in kinds.items():
        yield name
        values = tensor_of(name).float().contiguous().numpy()
        if kind != "F32":
            values = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
            values = values.view("uint8")
        writer.write_tensor_data(values)
    writer.close()
    sync_folder(path)


def open_writer(
    path: Path, arch: str, kinds: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> Any:
    """gguf's writer of a file whose header is written, for the tensors' data in this order."""
    gguf = library()
    writer: Any = gguf.GGUFWriter(None, arch)
    for name, kind in kinds.items():
        number = gguf.GGMLQuantizationType[kind]
        stored = stored_shape(gguf, shapes[name], number)
        dtype = torch.zeros(0, dtype=torch.float32 if kind == "F32" else torch.uint8).numpy().dtype
        size = dtype.itemsize
        for length in stored:
            size *= length
        writer.add_tensor_info(name, stored, dtype, size, raw_dtype=number)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def stored_shape(gguf: ModuleType, shape: tuple[int, ...], number: Any) -> tuple[int, ...]:
    """Shape in bytes of what is not F32."""
    if number == gguf.GGMLQuantizationType.F32:
        return shape
    converted: tuple[int, ...] = gguf.quant_shape_to_byte_shape(shape, number)
    return tuple(converted)


def read(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a GGUF file, unpacked to float32, in the file's order."""
    gguf = library()
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = [int(length) for length in reversed(tensor.shape)]
        yield tensor.name, torch.from_numpy(values.copy()).reshape(shape)


def kinds_of(path: Path) -> dict[str, str]:
    """Tensor name -> its GGUF type."""
    reader = library().GGUFReader(path)
    return {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
