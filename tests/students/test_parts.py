"""Blocks without parts: emptied and removed are the same block, and what is counted is what is
left, in every family.
"""

from __future__ import annotations

import copy

import pytest
import torch

from tests import block_states
from tests.students.helpers import SINGLE, answer, dual_row, free, plan_of, relative, tied_model
from tests.tiny_families import family_model
from workbench import models, plans, students, surgery
from workbench.families import FAMILIES
from workbench.records import Span
from workbench.students import weights_from_span

STACKS = [(name, row.path) for name, family in FAMILIES.items() for row in family.stacks]
EVERY_STACK = pytest.mark.parametrize(("name", "path"), STACKS)


def drops(name: str, path: str) -> list[tuple[str, ...]]:
    """Every part alone, and all of them."""
    model, row = family_model(name), FAMILIES[name].stack(path)
    block = model.get_submodule(path)[free(name, path)[-1]]
    parts = row.fitted({k: tuple(v.shape) for k, v in block.state_dict().items()}).parts
    return [(part,) for part in parts] + [
        tuple(part for part in parts if not parts[part].last_only)
    ]


@EVERY_STACK
def test_a_block_without_a_part_is_the_block_with_the_part_emptied(name: str, path: str) -> None:
    model, row, index = family_model(name), FAMILIES[name].stack(path), free(name, path)[-1]
    stack = model.get_submodule(path)
    own = stack[index]
    layout = {k: tuple(v.shape) for k, v in own.state_dict().items()}
    for drop in drops(name, path):
        emptied = copy.deepcopy(own)
        emptied.load_state_dict(block_states.without_parts(own.state_dict(), drop, row))
        stack[index] = emptied
        expected = answer(model)
        stack[index] = made = students.student_block(own, name, row, None, drop)
        assert torch.allclose(answer(model), expected, rtol=1e-4, atol=1e-5), drop
        stack[index] = own
        left = weights_from_span.student_layout(layout, Span(blocks=(index, index), drop=drop), row)
        assert {k: list(v.shape) for k, v in made.state_dict().items()} == left, drop
        held = {p.untyped_storage().data_ptr() for p in own.parameters()}
        assert all(
            p.untyped_storage().data_ptr() in held for p in made.parameters() if p.numel()
        ), f"{drop}: copied"
        info = models.describe_module(model).stack(path)
        assert plans.span_parameters(Span(blocks=(index, index), drop=drop), info, row) == sum(
            p.numel() for p in made.parameters()
        ), drop
    assert not any(isinstance(module, students.removed_parts.Gone) for module in own.modules()), (
        "the teacher's block was changed"
    )


@pytest.mark.parametrize("name", SINGLE)
def test_parts_of_a_single_block(name: str) -> None:
    """In the tied dual block a part of the one stream is a part of both."""
    row, index = dual_row(name), free(name)[-1]
    for part in ("attn", "mlp", "modulation"):
        if part not in row.parts:
            continue
        tied = tied_model(name)
        block = tied.get_submodule(row.path)[index]
        emptied = copy.deepcopy(tied)
        emptied.get_submodule(row.path)[index].load_state_dict(
            block_states.without_parts(block.state_dict(), (part, f"text.{part}"), row)
        )
        plan = plan_of(name, {index: {"stream": "single", "drop": (part,)}})
        with surgery.applied(tied, plan):
            assert relative(answer(tied), answer(emptied)) < 1e-5, part
            count = sum(p.numel() for p in tied.parameters())
        assert plans.parameters(plan, models.describe_module(tied)) == count, part


@EVERY_STACK
def test_a_second_cut_of_the_same_block(name: str, path: str) -> None:
    """Parts taken one after the other leave what they leave when taken at once."""
    model, row, index = family_model(name), FAMILIES[name].stack(path), free(name, path)[-1]
    own = model.get_submodule(path)[index]
    layout = {k: tuple(v.shape) for k, v in own.state_dict().items()}
    [*_, every] = drops(name, path)
    step, block = dict(layout), own
    for part in every:
        block = students.student_block(block, name, row, None, (part,))
        step = weights_from_span.student_layout(
            step, Span(blocks=(index, index), drop=(part,)), row
        )
        assert part not in row.fitted(step).parts
    assert step == weights_from_span.student_layout(
        layout, Span(blocks=(index, index), drop=every), row
    )
    assert {k: list(v.shape) for k, v in block.state_dict().items()} == step


def test_gain_on_a_linear_that_lost_rows() -> None:
    """The last block's text modulation without its output keeps shift and scale: nothing of it is
    scaled by a gain.
    """
    model, row = family_model("qwenimage"), dual_row("qwenimage")
    narrow = students.student_block(
        model.transformer_blocks[3], "qwenimage", row, None, ("text.output",)
    ).state_dict()
    gained = block_states.fold_gain(narrow, row, 3)
    assert (
        torch.equal(gained["txt_mod.1.weight"], narrow["txt_mod.1.weight"])
        and len(narrow["txt_mod.1.weight"]) == 2 * 32
    )
    assert not torch.equal(gained["img_mod.1.weight"], narrow["img_mod.1.weight"])
