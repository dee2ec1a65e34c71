"""A student's transformer as the one file that ComfyUI or stable-diffusion.cpp loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..families import by_class, is_hybrid
from ..families.original_names import OriginalTensor
from ..families.runtimes import RUNTIMES, Loads, Runtime
from ..models import read_config
from ..models.checkpoints import Layout, Reader, Writer, raw_bytes, verify
from ..models.headers import STEM, TensorInfo, headers
from ..models.layouts import stack_depth
from ..models.quantized import gguf_file
from ..records import BadInput, Progress

GGUF_GROUP = 32  # weights of a row that share a scale, in Q8_0 and Q4_0


@dataclass(frozen=True)
class SingleFile:
    """What to write. transformer: the student's folder. runtime: the name of its row. weights: of a
    GGUF file, Q8_0, Q4_0 or BF16. name: of the file, without its end.
    """

    transformer: Path
    runtime: str
    weights: str
    name: str

    @property
    def row(self) -> Runtime:
        return RUNTIMES[self.runtime]

    @property
    def file_name(self) -> str:
        return f"{self.name}.{self.row.form}"

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_config(self.transformer / "config.json")

    @cached_property
    def family(self) -> str:
        return by_class(str(self.config["_class_name"])).name

    @property
    def loads(self) -> Loads:
        return self.row.families[self.family]

    @cached_property
    def source(self) -> dict[str, TensorInfo]:
        return headers(self.transformer)

    @cached_property
    def tensors(self) -> list[OriginalTensor]:
        """What the file holds, by the runtime's names."""
        return list(self.loads.names(self.family).tensors(list(self.source)))


def check_single_file(order: SingleFile) -> None:
    """Raises BadInput, with the reason, for a student that the runtime does not load."""
    row = order.row
    if is_hybrid(str(order.config["_class_name"])):
        raise BadInput(
            f"{order.name} has blocks of its own: single-stream, without a part or with factored "
            f"modulation",
            f"a stock {by_class(str(order.config['_class_name'])).transformer}, which {row.title} "
            "knows",
            "build its plan again with --fat, or release it for diffusers",
        )
    reasons = row.obstacles(order.family, order.config, depths(order.config))
    if reasons:
        raise BadInput(
            f"{row.title} does not load this {order.family} student: {'; '.join(reasons)}",
            "a student that it loads (the table is in docs/releasing.md)",
            "release it for diffusers",
        )
    if row.form == "gguf":
        gguf_file.library()
        for tensor in order.tensors:
            dimensions = len(order.source[tensor.sources[0]].shape)
            if dimensions > gguf_file.MOST_DIMENSIONS:
                found = f"tensor {tensor.name} has {dimensions} dimensions"
                raise BadInput(found, "at most 4 in a GGUF file", "release it for comfyui")
    file_layout(order.tensors, order.source)


def depths(config: Mapping[str, Any]) -> dict[str, int]:
    """Blocks of each stack."""
    family = by_class(str(config["_class_name"]))
    return {row.path: stack_depth(config, row) for row in family.stacks}


def file_layout(tensors: list[OriginalTensor], source: Mapping[str, TensorInfo]) -> Layout:
    """dtype and shape of every tensor of the file. Raises BadInput where a joined one has parts of
    several dtypes.
    """
    layout = {}
    for tensor in tensors:
        parts = [source[name] for name in tensor.sources]
        first = parts[0]
        if any(part.dtype != first.dtype for part in parts):
            raise BadInput(
                f"{tensor.name} is made of tensors of several dtypes ({', '.join(tensor.sources)})",
                "one dtype",
                "build the student with --dtype bf16",
            )
        rows = sum(part.shape[0] for part in parts)
        layout[tensor.name] = (first.torch_dtype, (rows, *first.shape[1:]))
    return layout


def write_single_file(order: SingleFile, folder: Path) -> Iterator[Progress]:
    """Write the file, one tensor in memory at a time, and read it back."""
    with Reader(order.transformer) as reader:
        if order.row.form == "gguf":
            yield from write_gguf(order, reader, folder)
        else:
            yield from write_safetensors(order, reader, folder)


def write_safetensors(order: SingleFile, reader: Reader, folder: Path) -> Iterator[Progress]:
    layout = file_layout(order.tensors, reader.tensors)
    by_name = {tensor.name: tensor for tensor in order.tensors}
    whole = sum(info.bytes for info in reader.tensors.values())
    work = folder / "weights"
    with Writer(work, layout, max_shard_size=whole + 1) as writer:
        for step, name in enumerate(writer.order):
            yield Progress(step=step, total=2 * len(layout), message=name)
            writer.stream(name, pieces(by_name[name], reader))
    for step, name in enumerate(verify(work, layout, writer.sums), len(layout)):
        yield Progress(step=step, total=2 * len(layout), message=f"reading back {name}")
    (work / f"{STEM}.safetensors").rename(folder / order.file_name)
    work.rmdir()


def pieces(tensor: OriginalTensor, reader: Reader) -> Iterator[memoryview]:
    """The bytes of a tensor of the file, in order."""
    for source in tensor.sources:
        if not tensor.swapped:
            yield from reader.stream(source)
            continue
        rows = reader.tensors[source].shape[0]
        yield raw_bytes(reader.rows(source, rows // 2, rows))
        yield raw_bytes(reader.rows(source, 0, rows // 2))


def joined(tensor: OriginalTensor, parts: list[torch.Tensor]) -> torch.Tensor:
    """A tensor of the file from diffusers' tensors."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return torch.cat(whole.chunk(2)[::-1]) if tensor.swapped else whole


def split(tensor: OriginalTensor, whole: torch.Tensor, rows: list[int]) -> dict[str, torch.Tensor]:
    """diffusers' tensors from one of the file. rows: of each source."""
    if tensor.swapped:
        whole = torch.cat(whole.chunk(2)[::-1])
    return dict(zip(tensor.sources, whole.split(rows), strict=True))


def write_gguf(order: SingleFile, reader: Reader, folder: Path) -> Iterator[Progress]:
    layout = file_layout(order.tensors, reader.tensors)
    by_name = {tensor.name: tensor for tensor in order.tensors}
    kinds = gguf_kinds(order.tensors, layout, order.config, order.weights)
    shapes = {name: shape for name, (_, shape) in layout.items()}

    def tensor_of(name: str) -> torch.Tensor:
        tensor = by_name[name]
        return joined(tensor, [reader.tensor(source) for source in tensor.sources])

    path = folder / order.file_name
    writing = gguf_file.write(path, order.loads.arch, kinds, shapes, tensor_of)
    for step, name in enumerate(writing):
        yield Progress(step=step, total=len(kinds), message=name)
    if gguf_file.kinds_of(path) != kinds:
        raise OSError(f"{path} reads back differently: the disk is failing")


def gguf_kinds(
    tensors: list[OriginalTensor], layout: Layout, config: Mapping[str, Any], weights: str
) -> dict[str, str]:
    """The GGUF type of every tensor: matrices of blocks in `weights`, other matrices in BF16, all
    else in F32.
    """
    family = by_class(str(config["_class_name"]))
    stacks = tuple(f"{row.path}." for row in family.stacks)
    kinds = {}
    for tensor in tensors:
        _, shape = layout[tensor.name]
        kinds[tensor.name] = "F32"
        if len(shape) == 2 and tensor.name.endswith(".weight"):
            packs = shape[1] % GGUF_GROUP == 0 and tensor.sources[0].startswith(stacks)
            kinds[tensor.name] = weights if packs else "BF16"
    return kinds
