"""What a teacher is made of, without its weights: from safetensors headers or a config alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from ..families import StackRow, by_class, is_hybrid
from ..records import StackInfo, Stream, Teacher, numel
from . import checkpoints
from .access import config_of, family_of
from .folders import note, read_config, transformer_folder
from .headers import DTYPES, headers
from .layouts import (
    Shapes,
    TensorLayout,
    block_shapes,
    check_depth,
    check_shapes,
    config_layout,
    module_layout,
    stack_depth,
)
from .quantized.stored import fingerprint, quantization_of
from .stored_form import check_config, check_stored_form, surplus, surplus_line
from .weight_files import check_lone_file, check_weight_files


def describe(path: Path | str, name: str) -> Teacher:
    """What a pipeline folder, a transformer folder or a lone config.json holds; no weights are
    loaded.

    Of a folder the safetensors headers are read and checked against the config; a config.json alone
    is built on the meta device. Raises BadInput for anything else, and for headers that the config
    contradicts.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        check_lone_file(path)
        config = read_config(path)
        return teacher_of(name, config, config_layout(config, str(path)), "bfloat16", "")
    folder = transformer_folder(path)
    config = read_config(folder / "config.json")
    by_class(str(config["_class_name"]))  # refuses a class that is not supported, before its files
    quantization = quantization_of(folder)
    if quantization is not None:
        layout = config_layout(config, str(folder))
        return teacher_of(name, config, layout, "bfloat16", fingerprint(folder, quantization))
    check_config(config, str(folder))
    check_weight_files(folder)
    if folder != path and (path / "transformer_2" / "config.json").is_file():
        note(f"{path} has a second transformer; transformer is read, transformer_2 left as it is")
    tensors = {}
    for key, info in headers(folder).items():
        tensors[key] = (info.dtype, list(info.shape))
    return describe_headers(name, config, tensors, str(folder), checkpoints.fingerprint(folder))


def describe_headers(
    name: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, list[int]]],
    where: str,
    fingerprint: str,
) -> Teacher:
    """A teacher from its config and its headers (tensor name -> safetensors dtype and shape), which
    must agree. Tensors that no module has are named on stderr.
    """
    shapes = {key: shape for key, (_, shape) in tensors.items()}
    expected = config_layout(config, where)
    check_stored_form(config, tensors, expected.shapes.keys(), expected.buffers, where)
    check_depth(shapes, config, where)
    check_shapes(shapes, expected.shapes, where)
    ignored = surplus(tensors, expected.shapes.keys())
    if ignored:
        note(surplus_line(ignored, where))
    read = {key: shape for key, shape in shapes.items() if key in expected.shapes}
    layout = TensorLayout(read, expected.buffers)
    return teacher_of(name, config, layout, most_common_dtype(tensors), fingerprint)


def most_common_dtype(tensors: Mapping[str, tuple[str, list[int]]]) -> str:
    """The dtype, in torch's words, that most bytes are stored in."""
    bytes_of: Counter[str] = Counter()
    for dtype, shape in tensors.values():
        bytes_of[dtype] += numel(shape) * DTYPES[dtype].itemsize
    [(dtype, _)] = bytes_of.most_common(1)
    return str(DTYPES[dtype]).removeprefix("torch.")


def describe_module(transformer: nn.Module, name: str = "a loaded transformer") -> Teacher:
    """What a transformer in memory is made of, without a fingerprint."""
    class_name = type(transformer).__name__
    if not is_hybrid(class_name):
        class_name = family_of(transformer).transformer  # a subclass counts as its stock class
    config = {**config_of(transformer), "_class_name": class_name}
    dtype = str(next(transformer.parameters()).dtype).removeprefix("torch.")
    return teacher_of(name, config, module_layout(transformer), dtype, "")


def teacher_of(
    name: str, config: Mapping[str, Any], layout: TensorLayout, dtype: str, fingerprint: str
) -> Teacher:
    """The record of a teacher whose tensors are known."""
    family = by_class(str(config["_class_name"]))
    inside = 0
    stacks = []
    for row in family.stacks:
        blocks = block_shapes(layout.shapes, row.path)
        depth = stack_depth(config, row)
        stacks.append(stack_info(row, blocks, depth))
        inside += sum(parameters(blocks.get(index, {})) for index in range(depth))
    weights = {key: shape for key, shape in layout.shapes.items() if key not in layout.buffers}
    return Teacher(
        name=name,
        family=family.name,
        class_name=str(config["_class_name"]),
        stacks=stacks,
        dtype=dtype,
        outside=parameters(weights) - inside,
        fingerprint=fingerprint,
        config=dict(config),
    )


def stack_info(row: StackRow, blocks: Mapping[int, Shapes], depth: int) -> StackInfo:
    """A stack's blocks, with each different layout written once."""
    layouts: list[Shapes] = []
    layout_of = []
    for index in range(depth):
        shapes = blocks.get(index, {})
        if shapes not in layouts:
            layouts.append(shapes)
        layout_of.append(layouts.index(shapes))
    kind = cast(Stream, row.kind)
    return StackInfo(path=row.path, kind=kind, layouts=layouts, layout_of=layout_of)


def parameters(shapes: Shapes) -> int:
    return sum(numel(shape) for shape in shapes.values())
