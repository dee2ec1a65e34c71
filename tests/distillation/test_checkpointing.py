"""Gradient checkpointing of every family: the same gradients, and each block run again for its
backward.
"""

from __future__ import annotations

import pytest
import torch

from tests.refusals import refused
from tests.students.helpers import SINGLE, free, inputs_of, plan_of
from tests.tiny_families import family_model
from workbench import models, surgery
from workbench.distillation.loop import checkpoint_blocks
from workbench.families import FAMILIES


def gradients(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Of a mean square of the answer; and how often each block was called."""
    model.zero_grad()
    calls: dict[str, int] = {}
    handles = []
    for path, stack in models.blocks_of(model).items():
        for index, block in enumerate(stack):

            def called(
                module: object, args: object, kwargs: object, name: str = f"{path}.{index}"
            ) -> None:
                calls[name] = calls.get(name, 0) + 1

            handles.append(block.register_forward_pre_hook(called, with_kwargs=True))
    models.prediction(
        model(**inputs_of(models.family_of(model).name)), model
    ).square().mean().backward()
    for handle in handles:
        handle.remove()
    return {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }, calls


@pytest.mark.parametrize("name", [*FAMILIES, *(f"{name} single" for name in SINGLE)])
def test_gradients_are_those_without_it(name: str):
    family, _, hybrid = name.partition(" ")
    model = family_model(family)
    if hybrid:
        changed = {free(family)[0]: {"stream": "single"}, free(family)[-1]: {"drop": ("mlp",)}}
        model = surgery.student_transformer(model, plan_of(family, changed))
    model.requires_grad_(True)
    plain, once = gradients(model)
    checkpoint_blocks(model)
    again, calls = gradients(model)
    assert calls == {block: 2 * count for block, count in once.items()}
    assert plain.keys() == again.keys() and all(
        torch.allclose(plain[key], again[key], rtol=1e-5, atol=1e-7) for key in plain
    )


def test_a_class_without_it_is_refused():
    with refused(found="Linear", do="--checkpointing"):
        checkpoint_blocks(torch.nn.Linear(1, 1))
