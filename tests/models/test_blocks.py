"""Bypass, capture and injection against the model taken apart by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.tiny import tiny_inputs, tiny_transformer
from tests.tiny_teacher import STACK
from workbench.models import blocks

INPUTS = tiny_inputs()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_transformer(depth=5).requires_grad_(False)


def answer(model: nn.Module) -> torch.Tensor:
    return model(**INPUTS)[0]  # (B, N, D)


def untouched(model: nn.Module) -> bool:
    return all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("gone", [[0], [2], [4], [1, 3], [0, 1, 2, 3, 4]])
def test_bypass_equals_removal(model: nn.Module, gone: list[int]) -> None:
    removed = copy.deepcopy(model)
    removed.transformer_blocks = nn.ModuleList(
        b for i, b in enumerate(removed.transformer_blocks) if i not in gone
    )
    with blocks.bypass(model, [(STACK, block) for block in gone]):
        assert torch.equal(answer(model), answer(removed))
    assert untouched(model)


def test_the_model_is_itself_again_also_after_an_exception(model: nn.Module) -> None:
    before = answer(model)
    with (
        pytest.raises(ZeroDivisionError),
        blocks.capture(model),
        blocks.bypass(model, [(STACK, 1)]),
    ):
        assert not torch.equal(answer(model), before)
        raise ZeroDivisionError
    assert untouched(model) and torch.equal(answer(model), before)


def test_a_forward_put_there_by_others_survives(model: nn.Module) -> None:
    block = model.transformer_blocks[0]
    mine = block.forward
    block.forward = mine
    with blocks.bypass(model, [(STACK, 0)]):
        pass
    assert vars(block).pop("forward") is mine


def test_capture_sees_the_chain(model: nn.Module) -> None:
    with blocks.capture(model) as held:
        plain = answer(model)
    assert torch.equal(plain, answer(model))
    assert held.order == [(STACK, block) for block in range(5)]
    for block in range(4):
        for name in ("hidden_states", "encoder_hidden_states"):
            assert held.outputs[STACK, block][name] is not None
            assert torch.equal(
                held.outputs[STACK, block][name], held.inputs[STACK, block + 1][name]
            )
    assert (
        held.inputs[STACK, 0]["hidden_states"].shape[1] == 6
        and held.inputs[STACK, 0]["encoder_hidden_states"].shape[1] == 5
    )


def test_capture_can_stay_on_the_graph() -> None:
    model = tiny_transformer(depth=2)
    with blocks.capture(model, [(STACK, 0)], detach=False) as held:
        answer(model)
    held.outputs[STACK, 0]["hidden_states"].sum().backward()
    assert model.transformer_blocks[0].img_mlp.net[2].weight.grad is not None
    assert model.transformer_blocks[1].img_mlp.net[2].weight.grad is None


def test_injected_blocks_compute_on_what_they_are_given(model: nn.Module) -> None:
    other = tiny_transformer(depth=5, seed=9).requires_grad_(False)
    with blocks.capture(model) as teacher:
        answer(model)
    with blocks.inject(other, {(STACK, 2): teacher.inputs[STACK, 2]}), blocks.capture(other) as fed:
        answer(other)
    with blocks.inject(model, {(STACK, 2): fed.outputs[STACK, 1]}), blocks.capture(model) as back:
        answer(model)
    # the later context sees first
    assert torch.equal(
        back.inputs[STACK, 2]["hidden_states"], teacher.inputs[STACK, 2]["hidden_states"]
    )
    assert not torch.equal(
        back.outputs[STACK, 2]["hidden_states"], teacher.outputs[STACK, 2]["hidden_states"]
    )
    assert not torch.equal(
        fed.outputs[STACK, 2]["hidden_states"], teacher.outputs[STACK, 2]["hidden_states"]
    )


def test_unknown_block(model: nn.Module) -> None:
    with refused(found="transformer_blocks has no block 9"), blocks.bypass(model, [(STACK, 9)]):
        pass
    assert untouched(model)
