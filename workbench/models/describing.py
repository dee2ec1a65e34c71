"""What a teacher is made of, without its weights: from safetensors headers, or a config built on
the meta device.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from torch import nn

from .. import students as hybrid
from ..families import HYBRID, StackRow, by_class
from ..records import BadInput, StackInfo, Stream, Teacher, numel, read_text
from . import checkpoints
from .access import config_of, family_of, quiet

Shapes = dict[str, list[int]]
NOT_OURS = ("auto_map", "quantization_config")  # in a config.json, no arguments of a class


def describe(path: Path | str, name: str) -> Teacher:
    """What a pipeline folder, a transformer folder or a lone config.json holds; no weights are
    loaded.

    Of a folder the safetensors headers are read and checked against the config; a config.json alone
    is built on the meta device. Raises BadInput for anything else, and for headers that the config
    contradicts.
    """
    path = Path(path)
    if path.is_file():
        config = read_config(path)
        return _teacher(name, config, _meta(config, str(path)), "bfloat16", "")
    folder = transformer_folder(path)
    tensors = {
        key: (info.dtype, list(info.shape)) for key, info in checkpoints.headers(folder).items()
    }
    return describe_headers(
        name,
        read_config(folder / "config.json"),
        tensors,
        str(folder),
        checkpoints.fingerprint(folder),
    )


def describe_headers(
    name: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, list[int]]],
    where: str,
    fingerprint: str,
) -> Teacher:
    """A teacher from its config and its headers (tensor name -> safetensors dtype and shape), which
    must agree.
    """
    shapes = {key: shape for key, (_, shape) in tensors.items()}
    _check_depth(shapes, config, where)
    meta = _meta(config, where)
    _check_shapes(shapes, meta.shapes, where)
    bytes_of: Counter[str] = Counter()
    for kind, shape in tensors.values():
        bytes_of[kind] += numel(shape) * checkpoints.DTYPES[kind].itemsize
    dtype = str(checkpoints.DTYPES[bytes_of.most_common(1)[0][0]]).removeprefix("torch.")
    return _teacher(name, config, Held(shapes, meta.buffers), dtype, fingerprint)


def describe_module(transformer: nn.Module, name: str = "a loaded transformer") -> Teacher:
    """The same of a transformer in memory, without a fingerprint."""
    name_of = type(transformer).__name__
    config = {
        **config_of(transformer),
        "_class_name": name_of
        if name_of.startswith(HYBRID)
        else family_of(transformer).transformer,
    }
    return _teacher(
        name,
        config,
        _held(transformer),
        str(next(transformer.parameters()).dtype).removeprefix("torch."),
        "",
    )


def read_config(path: Path) -> dict[str, Any]:
    """A transformer's config.json, with its class name."""
    try:
        config = json.loads(read_text(path, "config"))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path} is not JSON (line {error.lineno}: {error.msg})",
            "a diffusers config.json",
            "mend it",
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
        raise BadInput(
            f"{path} names no _class_name",
            "the config.json of a diffusers transformer",
            "point to the transformer's config",
        )
    return config


def transformer_folder(path: Path | str) -> Path:
    """The folder that holds the transformer's config and weights: `path/transformer` of a pipeline,
    or `path` itself.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(
            f"{path} does not exist", "a pipeline or transformer folder", "check the path"
        )
    for folder, mark in (
        (path / "transformer", path / "model_index.json"),
        (path, path / "config.json"),
    ):
        if mark.is_file():
            if not (folder / "config.json").is_file():
                raise BadInput(
                    f"{path} is a pipeline without transformer/config.json",
                    "a diffusion transformer pipeline",
                    "use a DiT pipeline (U-Net pipelines have no stack of blocks)",
                )
            return folder
    raise BadInput(
        f"{path} has neither model_index.json nor config.json",
        "a diffusers pipeline or transformer folder",
        "point to the folder that has one",
    )


def is_pipeline(path: Path | str) -> bool:
    return (Path(path) / "model_index.json").is_file()


@dataclass(frozen=True)
class Held:
    """The tensors of a model. Buffers (SD3's position table) are no parameters, though a checkpoint
    has them.
    """

    shapes: Shapes
    buffers: frozenset[str]


def _held(model: nn.Module) -> Held:
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    return Held(shapes, frozenset(name for name, _ in model.named_buffers()))


def _meta(config: Mapping[str, Any], where: str) -> Held:
    """The tensors a config describes, built on the meta device: no memory."""
    family = by_class(str(config["_class_name"]))
    check_class(config, where)
    custom = str(config["_class_name"]).startswith(HYBRID)
    try:
        with torch.device("meta"), quiet():
            cls = (
                hybrid.student_class(family.name)
                if custom
                else getattr(diffusers, family.transformer)
            )
            model = cls.from_config(dict(config))
    except (
        TypeError,
        ValueError,
        RuntimeError,
        ZeroDivisionError,
        AssertionError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:
        raise BadInput(
            f"{where} does not build a {family.transformer} ({str(error)[:120]})",
            "a sound config",
            "mend it",
        ) from None
    return _held(model)


def beyond(folder: Path, config: Mapping[str, Any]) -> str:
    """What in a hybrid student's folder this version's class cannot hold; empty where it can,
    whoever wrote the folder. Runs no code.
    """
    known = {
        *inspect.signature(
            hybrid.student_class(by_class(str(config["_class_name"])).name).__init__
        ).parameters,
        *NOT_OURS,
    }
    if odd := [
        key
        for key, value in config.items()
        if not (key in known or key.startswith("_") or value in (None, [], {}))
    ]:
        return f"its config.json has {odd[0]!r}"
    if "quantization_config" in config:
        return ""  # the tensors are those of another library
    tensors = {key: list(info.shape) for key, info in checkpoints.headers(folder).items()}
    try:
        expected = _meta(config, str(folder)).shapes
        _check_shapes(tensors, expected, str(folder))
    except BadInput as error:
        return str(error).partition("; ")[0]
    return next((f"it holds a tensor {name}" for name in tensors if name not in expected), "")


def check_class(config: Mapping[str, Any], where: str) -> None:
    """Refuse a config of custom blocks under a stock class: it would load with weights made up for
    what is not there.
    """
    name = str(config["_class_name"])
    if not name.startswith(HYBRID) and any(
        config.get(key) for key in ("single_stream_layers", "removed_parts")
    ):
        raise BadInput(
            f"{where}: config.json tells of single-stream blocks or removed parts, but "
            f"names the stock class {name}",
            f"class {HYBRID}{name}",
            "save it again from the student's own class",
        )


def _check_depth(shapes: Shapes, config: Mapping[str, Any], where: str) -> None:
    for row in by_class(str(config["_class_name"])).stacks:
        depth = _depth(config, row)
        held = len(_blocks(shapes, row.path))
        # a block may have lost everything: _check_shapes will tell
        if held != depth and not config.get("removed_parts"):
            raise BadInput(
                f"{where} holds {held} blocks in {row.path}",
                f"{depth}, by {row.depth_key} of its config.json",
                f"set {row.depth_key} to {held}, or copy the missing shards",
            )


def _depth(config: Mapping[str, Any], row: StackRow) -> int:
    """Blocks in a stack, by the config or its class's default."""
    cls = getattr(diffusers, by_class(str(config["_class_name"])).transformer)
    return config.get(
        row.depth_key, inspect.signature(cls.__init__).parameters[row.depth_key].default
    )


def _check_shapes(shapes: Shapes, expected: Shapes, where: str) -> None:
    for name, shape in expected.items():
        if name not in shapes:
            raise BadInput(
                f"{where} lacks tensor {name}",
                "every tensor its config.json asks for",
                "copy the whole checkpoint",
            )
        if shapes[name] != shape:
            raise BadInput(
                f"{where}: tensor {name} is {shapes[name]}",
                f"{shape}, by its config.json",
                "use the config of these weights",
            )


def _blocks(shapes: Shapes, path: str) -> dict[int, Shapes]:
    """Block number -> tensors inside, for names `<path>.<i>.<rest>`."""
    pattern = re.compile(re.escape(path) + r"\.(\d+)\.(.+)")
    out: dict[int, Shapes] = {}
    for name, shape in shapes.items():
        if match := pattern.fullmatch(name):
            out.setdefault(int(match[1]), {})[match[2]] = shape
    return dict(sorted(out.items()))


def _teacher(
    name: str, config: Mapping[str, Any], held: Held, dtype: str, fingerprint: str
) -> Teacher:
    family = by_class(str(config["_class_name"]))
    stacks, inside = [], 0
    for row in family.stacks:
        layouts: list[Shapes] = []
        layout_of = []
        blocks = _blocks(held.shapes, row.path)
        for tensors in (blocks.get(index, {}) for index in range(_depth(config, row))):
            if tensors not in layouts:
                layouts.append(tensors)
            layout_of.append(layouts.index(tensors))
            inside += sum(numel(shape) for shape in tensors.values())
        stacks.append(
            StackInfo(
                path=row.path, kind=cast(Stream, row.kind), layouts=layouts, layout_of=layout_of
            )
        )
    everything = sum(numel(shape) for key, shape in held.shapes.items() if key not in held.buffers)
    return Teacher(
        name=name,
        family=family.name,
        class_name=str(config["_class_name"]),
        stacks=stacks,
        dtype=dtype,
        outside=everything - inside,
        fingerprint=fingerprint,
        config=dict(config),
    )
