"""A quantised student's folder: whether it is one, the shapes of its weights, and the weights
unpacked. Read by us, whether the library that diffusers reads it with is installed or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from ...records import BadInput, Card, Quantization, numel
from ..checkpoints import Reader
from ..checkpoints import fingerprint as fingerprint_of_tensors
from ..folders import read_config
from ..headers import headers
from ..layouts import config_layout
from ..unloaded import unloaded_transformer
from . import gguf_file
from .packing import PACKINGS

SAMPLE = 2**20  # bytes at each end of a GGUF file that its fingerprint is of


def quantization_of(folder: Path) -> Quantization | None:
    """What the card of a transformer's folder, or of the pipeline around it, says of its
    quantisation. None for weights as they are, and for those that another program quantised.
    """
    folder = Path(folder)
    if not looks_quantized(folder):
        return None
    places = [folder, folder.parent] if folder.name == "transformer" else [folder]
    for place in places:
        if (place / "card.json").is_file():
            return Card.load(place / "card.json").quantization
    return None


def looks_quantized(folder: Path) -> bool:
    if (folder / gguf_file.NAME).is_file():
        return True
    config = folder / "config.json"
    return config.is_file() and "quantization_config" in read_config(config)


def check_unquantized(folder: Path, name: str, verb: str) -> None:
    """Raises BadInput for a student that `workbench quantize` wrote."""
    found = quantization_of(folder)
    if found is not None:
        raise BadInput(
            f"{name} is quantised ({found.to})",
            f"weights in bf16, fp16 or fp32 to {verb}",
            f"use the student that it was made from: {found.source}",
        )


def stored_shapes(folder: Path) -> dict[str, list[int]]:
    """The shapes of a transformer's weights, quantised or not."""
    if quantization_of(folder) is None:
        return {name: list(info.shape) for name, info in headers(folder).items()}
    return config_layout(read_config(folder / "config.json"), str(folder)).shapes


def stored_size(folder: Path) -> tuple[int, int]:
    """A transformer's numbers, and the bytes of its weights on the disk."""
    count = sum(numel(shape) for shape in stored_shapes(folder).values())
    if (folder / gguf_file.NAME).is_file() and quantization_of(folder) is not None:
        return count, (folder / gguf_file.NAME).stat().st_size
    return count, sum(info.bytes for info in headers(folder).values())


def fingerprint(folder: Path, found: Quantization) -> str:
    """12 hex digits that tell two quantised students apart."""
    if found.library != "gguf":
        return fingerprint_of_tensors(folder)
    path = folder / gguf_file.NAME
    digest = hashlib.sha256(str(path.stat().st_size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(SAMPLE))
        file.seek(max(0, path.stat().st_size - SAMPLE))
        digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:12]


def weights(folder: Path, found: Quantization) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the transformer, one at a time, packed ones as float32.

    Raises BadInput for a folder that lacks a tensor of its config.
    """
    if found.library == "gguf":
        yield from gguf_file.read(folder / gguf_file.NAME)
        return
    packing = PACKINGS[found.to]
    with Reader(folder) as reader:
        for name, shape in stored_shapes(folder).items():
            parts: list[str] = []
            if len(shape) == 2:
                parts = list(packing.layout(name, (shape[0], shape[1])))
            if parts and all(part in reader.tensors for part in parts):
                stored = {part: reader.tensor(part) for part in parts}
                yield name, packing.unpack(name, tuple(shape), stored)
            elif name in reader.tensors:
                yield name, reader.tensor(name)
            else:
                raise lacks(folder, name)


def load_quantized(
    cls: Any, folder: Path, found: Quantization, device: str, dtype: torch.dtype
) -> ModelMixin:
    """The transformer with its weights unpacked, in eval mode: it computes what the quantised one
    does, up to roundings, and takes the memory of one that is not.
    """
    model = unloaded_transformer(cls, folder, device=torch.device(device), dtype=dtype)
    slots = dict(model.named_parameters()) | dict(model.named_buffers())
    missing = set(model.state_dict())
    for name, tensor in weights(folder, found):
        if name not in slots or slots[name].shape != tensor.shape:
            raise BadInput(
                f"{folder} has an unknown tensor {name} {list(tensor.shape)}",
                "the tensors of its config.json",
                "quantise the student again",
            )
        slots[name].data = tensor.to(slots[name].device, slots[name].dtype)
        missing.discard(name)
    if missing:
        raise lacks(folder, min(missing))
    return model


def lacks(folder: Path, name: str) -> BadInput:
    return BadInput(
        f"{folder} lacks tensor {name}",
        "every tensor its config.json names",
        "copy the whole folder, or quantise the student again",
    )
