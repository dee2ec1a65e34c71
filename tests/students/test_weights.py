"""What a student block is made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests import block_states
from tests.refusals import refused
from tests.tiny import tiny_inputs, tiny_transformer
from tests.tiny_teacher import STACK
from workbench.families import FAMILIES
from workbench.models import blocks
from workbench.records import Span
from workbench.students import weights_from_span

ROW = FAMILIES["qwenimage"].stack(STACK)


def step(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What block 1 adds to each stream, with these weights."""
    held = model.transformer_blocks[1].state_dict()
    own = {name: tensor.clone() for name, tensor in held.items()}
    model.transformer_blocks[1].load_state_dict(state)
    with torch.no_grad(), blocks.capture(model) as seen:
        model(**tiny_inputs(dtype=torch.float64))
    model.transformer_blocks[1].load_state_dict(own)
    # (B, N, D)
    return {name: seen.outputs[STACK, 1][name] - seen.inputs[STACK, 1][name] for name in ROW.inputs}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_transformer(depth=3).double().requires_grad_(False)


@pytest.mark.parametrize("gain", [2, 0.5, 3])
@pytest.mark.parametrize("other", [("mlp", "text.mlp"), ("attn", "text.attn")])
def test_residual_of_gain_g_is_g_times_the_residual(
    model: nn.Module, gain: float, other: tuple[str, str]
) -> None:
    """In both streams, branch by branch: the MLP reads what attention has written, so a block is
    linear in one branch at a time.
    """
    state = block_states.without_parts(model.transformer_blocks[1].state_dict(), other, ROW)
    plain, scaled = step(model, state), step(model, block_states.fold_gain(state, ROW, gain))
    for name in ROW.inputs:
        assert plain[name].abs().max() > 1e-3
        assert torch.allclose(scaled[name], gain * plain[name], rtol=1e-12, atol=1e-13)


def test_without_both_branches_a_block_does_nothing(model: nn.Module) -> None:
    state = block_states.without_parts(
        model.transformer_blocks[1].state_dict(), ("attn", "mlp", "text.attn", "text.mlp"), ROW
    )
    assert all(not delta.any() for delta in step(model, state).values())


def test_parts_leave_the_other_stream_alone(model: nn.Module) -> None:
    state = model.transformer_blocks[1].state_dict()
    plain, cut = (
        step(model, state),
        step(model, block_states.without_parts(state, ["text.mlp"], ROW)),
    )
    assert torch.equal(plain["hidden_states"], cut["hidden_states"])
    assert not torch.equal(plain["encoder_hidden_states"], cut["encoder_hidden_states"])


def test_modulation_without_its_linear_has_gate_one() -> None:
    block = tiny_transformer(depth=1).transformer_blocks[0]
    block.load_state_dict(block_states.without_parts(block.state_dict(), ["modulation"], ROW))
    shift, scale, gate = block.img_mod(torch.randn(2, 32)).chunk(2, 1)[0].chunk(3, 1)
    assert not shift.any() and not scale.any() and (gate == 1).all()
    assert not (block.txt_mod(torch.randn(2, 32)) == 1).any()


@pytest.mark.parametrize(
    ("init", "wanted"), [("first", 0), ("middle", 1), ("last", 2), ("mean", None)]
)
def test_merged_weights(init: str, wanted: int | None) -> None:
    states = [
        block.state_dict()
        for block in tiny_transformer(depth=3).to(torch.bfloat16).transformer_blocks
    ]
    merged = block_states.merged_state(states, init, 1, ROW)
    for name, tensor in merged.items():
        exact = (
            states[wanted][name]
            if wanted is not None
            else torch.stack([s[name].float() for s in states]).mean(0).bfloat16()
        )
        assert tensor.dtype == torch.bfloat16
        assert (tensor.float() - exact.float()).abs().max() <= 2**-8 * exact.float().abs().max()
        assert wanted is None or torch.equal(tensor, exact)


def test_only_gate_rows_take_the_gain() -> None:
    state = tiny_transformer(depth=1).transformer_blocks[0].state_dict()
    folded = block_states.fold_gain(state, ROW, 2)
    changed = {name for name in state if not torch.equal(state[name], folded[name])}
    assert changed == {
        f"{mod}.1.{kind}" for mod in ("img_mod", "txt_mod") for kind in ("weight", "bias")
    }
    before, after = state["img_mod.1.bias"].chunk(6), folded["img_mod.1.bias"].chunk(6)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_a_plain_block_is_the_teachers_tensor() -> None:
    tensor = torch.randn(3)
    assert (
        weights_from_span.student_tensor(
            "attn.to_q.bias", lambda block, name: tensor, Span(blocks=(2, 2)), ROW
        )
        is tensor
    )
    assert (
        weights_from_span.student_tensor(
            "attn.to_q.bias", lambda block, name: tensor, Span(blocks=(2, 2), stream="single"), ROW
        )
        is tensor
    )
    with refused(found="img_mod.1.weight of torch.int8"):
        block_states.fold_gain({"img_mod.1.weight": torch.ones(6, 2, dtype=torch.int8)}, ROW, 2)
