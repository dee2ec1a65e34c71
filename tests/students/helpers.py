"""Tied teachers: text weights are copies of the image's, so that dual and single blocks must agree."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import venv
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.tiny_families import family_inputs, family_model
from workbench import models, surgery
from workbench.families import FAMILIES, StackRow
from workbench.records import Plan, Span
from workbench.students import weights_from_span

SINGLE = ("qwenimage", "flux", "sd3", "hunyuanimage", "auraflow")


def dual_row(name: str) -> StackRow:
    return FAMILIES[name].stack(FAMILIES[name].dual_stack)


def tied_state(block: nn.Module, row: StackRow) -> dict[str, torch.Tensor]:
    """The block's state with every text tensor the leading rows of its image tensor."""
    state = block.state_dict()
    return {
        name: state[weights_from_span.tied_name(name, row)][: len(tensor)].clone()
        for name, tensor in state.items()
    }


def tied_model(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A tiny model of the family whose dual blocks are tied; pinned ones stay as they are."""
    model, row = family_model(name), dual_row(name)
    stack = model.get_submodule(row.path)
    for index, block in enumerate(stack):
        if index not in row.pinned_in(len(stack)):
            block.load_state_dict(tied_state(block, row))
    return model.to(dtype)


def inputs_of(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return models.placed(family_inputs(name), torch.device("cpu"), dtype)


def answer(model: nn.Module, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with torch.no_grad():
        return models.prediction(model(**inputs_of(models.family_of(model).name, dtype)), model)


def free(name: str, path: str = "") -> list[int]:
    """Blocks of a stack (the dual one) that are not pinned."""
    row = FAMILIES[name].stack(path or FAMILIES[name].dual_stack)
    depth = len(family_model(name).get_submodule(row.path))
    return [b for b in range(depth) if b not in row.pinned_in(depth)]


def plan_of(name: str, changed: dict[int, dict[str, Any]], path: str = "") -> Plan:
    """Every block kept alone, with the span fields given for some of the (dual) stack's."""
    model, path = family_model(name), path or FAMILIES[name].dual_stack
    stacks = {
        p: [
            Span(blocks=(b, b), **(changed.get(b, {}) if p == path else {}))
            for b in range(len(stack))
        ]
        for p, stack in models.blocks_of(model).items()
    }
    return Plan(teacher="tiny", family=name, stacks=stacks)


def block_calls(
    model: nn.Module, path: str, dtype: torch.dtype
) -> dict[int, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What the model calls the blocks of a stack with."""
    calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    handles = [
        block.register_forward_pre_hook(
            lambda module, args, kwargs, index=index: calls.__setitem__(index, (args, kwargs)),
            with_kwargs=True,
        )
        for index, block in enumerate(model.get_submodule(path))
    ]
    answer(model, dtype)
    for handle in handles:
        handle.remove()
    return calls


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def build(folder: Path, plan: Plan, out: Path, **more: Any) -> dict[str, Any]:
    return list(surgery.build(folder, models.describe(folder, "tiny"), plan, out, **more))[
        -1
    ].result


@cache
def bare_environment() -> Path:
    """The interpreter of a fresh environment with every installed library but this package."""
    root = Path(tempfile.mkdtemp(prefix="bare-environment-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    venv.create(root, with_pip=False, symlinks=True)
    libraries = next(root.glob("lib/python*/site-packages"))
    for held in Path(torch.__file__).parents[1].iterdir():
        if not held.name.startswith(("workbench", "dit_workbench", "__editable__")):
            (libraries / held.name).symlink_to(held)
    return root / "bin" / "python"
