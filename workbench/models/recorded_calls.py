"""Recorded transformer inputs as one safetensors file: tensors as they are, everything else as JSON
in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..records import BadInput, check_regular, draft_of, jsonfile
from .sampling import Call

KEY = "workbench_calls"
PLAIN = (bool, int, float, str, type(None))


def save_inputs(calls: Iterable[Call], path: Path | str) -> Path:
    """Write calls, for families whose sampler the workbench does not drive or for a scan elsewhere.

    kwargs may hold tensors, lists, tuples, dicts with string keys and plain values, nested. Raises
    BadInput for others.
    """
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}
    described = [
        {
            "kwargs": packed(call.kwargs, tensors),
            "timestep": call.timestep,
            "group": call.group,
            "samples": call.samples,
            "branch": call.branch,
        }
        for call in calls
    ]
    with draft_of(path) as draft:
        save_file(tensors, draft, {KEY: json.dumps(described)})
    return path


def check_inputs(path: Path | str) -> None:
    """Raises BadInput for a file that `save_inputs` did not write; no tensor is read."""
    check_regular(Path(path), "recorded inputs")
    try:
        with safe_open(Path(path), "pt") as file:
            jsonfile.parse((file.metadata() or {})[KEY])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise no_inputs(path, error) from None


def load_inputs(path: Path | str) -> list[Call]:
    """The calls of a file that `save_inputs` wrote, tensors on the CPU. Nothing in the file is
    executed.

    Raises BadInput for any other file.
    """
    check_regular(Path(path), "recorded inputs")
    try:
        with safe_open(Path(path), "pt") as file:
            described = jsonfile.parse((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        return [
            Call(
                unpacked(call["kwargs"], tensors),
                float(call["timestep"]),
                int(call["group"]),
                int(call["samples"]),
                str(call["branch"]),
            )
            for call in described
        ]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise no_inputs(path, error) from None


def no_inputs(path: Path | str, error: Exception) -> BadInput:
    """The error for a file without recorded inputs."""
    return BadInput(
        f"{path} holds no recorded inputs ({type(error).__name__}: {str(error)[:80]})",
        "a file of models.save_inputs",
        "record the inputs again",
    )


def packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON for a value; its tensors go into `tensors` under a number."""
    if isinstance(value, torch.Tensor):
        tensors[str(len(tensors))] = value.detach().cpu().clone().contiguous()
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [packed(item, tensors) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: packed(item, tensors) for key, item in value.items()}}
    if isinstance(value, PLAIN):
        return value
    raise BadInput(
        f"an input of type {type(value).__name__}",
        "tensors, lists, tuples, dicts and plain values",
        "leave it out",
    )


def unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpacked(item, tensors) for key, item in content.items()}
    items = [unpacked(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
