"""A single-stream block equals the dual block whose text weights are copies of its image weights."""

from __future__ import annotations

import pytest
import torch

from tests.refusals import refused
from tests.students.helpers import (
    SINGLE,
    answer,
    block_calls,
    dual_row,
    free,
    plan_of,
    relative,
    tied_model,
)
from tests.tiny import tiny_inputs, tiny_transformer
from tests.tiny_families import family_model
from workbench import models, students, surgery
from workbench.families import FAMILIES

EVERY = pytest.mark.parametrize("name", SINGLE)
PRECISION = pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)]
)


@EVERY
@PRECISION
def test_a_single_block_is_the_tied_dual_block(name: str, dtype: torch.dtype, bound: float) -> None:
    model, row = tied_model(name, dtype), dual_row(name)
    calls = block_calls(model, row.path, dtype)
    for index in free(name):
        dual = model.get_submodule(row.path)[index]
        single = students.student_block(dual, name, row, "single", ())
        args, kwargs = calls[index]
        with torch.no_grad():
            for ours, theirs in zip(single(*args, **kwargs), dual(*args, **kwargs), strict=True):
                assert relative(ours, theirs) < bound
        assert sum(p.numel() for p in single.parameters()) < sum(
            p.numel() for p in dual.parameters()
        )


@EVERY
@PRECISION
@pytest.mark.parametrize("which", ["one", "all"])
def test_a_model_of_mixed_blocks_is_the_tied_model(
    name: str, dtype: torch.dtype, bound: float, which: str
) -> None:
    model = tied_model(name, dtype)
    before = answer(model, dtype)
    plan = plan_of(
        name, {b: {"stream": "single"} for b in (free(name) if which == "all" else free(name)[1:2])}
    )
    with surgery.applied(model, plan):
        assert relative(answer(model, dtype), before) < bound
        assert type(model) is students.student_class(name)
    assert torch.equal(answer(model, dtype), before) and type(model) is type(family_model(name))


@EVERY
def test_without_ties_a_single_block_is_another(name: str) -> None:
    model = family_model(name)
    with surgery.applied(model, plan_of(name, {1: {"stream": "single"}})):
        changed = answer(model)
    assert relative(changed, answer(model)) > 1e-3


@pytest.mark.parametrize("padded", [False, True])
def test_qwen_with_padded_prompts_and_conditions_of_two_timesteps(padded: bool) -> None:
    """zero_cond_t modulates the tokens of a condition picture at timestep 0, and text as the
    picture that is made.
    """
    from diffusers import QwenImageTransformer2DModel

    from tests.students.helpers import tied_state
    from tests.tiny import randomise

    if padded:
        model, inputs = tiny_transformer(), tiny_inputs()
    else:
        model = QwenImageTransformer2DModel(
            **{**tiny_transformer().config, "zero_cond_t": True, "num_layers": 2}
        )
        randomise(model)
        inputs = tiny_inputs(grid=(2, 4)) | {"img_shapes": [[(1, 2, 2), (1, 2, 2)]] * 2}
    row = FAMILIES["qwenimage"].stacks[0]
    for block in model.transformer_blocks:
        block.load_state_dict(tied_state(block, row))
    with torch.no_grad():
        whole = model(**inputs)[0]
        for index, block in enumerate(model.transformer_blocks):
            model.transformer_blocks[index] = students.student_block(
                block, "qwenimage", row, "single", ()
            )
        assert relative(model(**inputs)[0], whole) < 1e-5


def test_half_precision_stays_in_range() -> None:
    model = tied_model("qwenimage", torch.float16)
    block = students.student_block(
        model.transformer_blocks[0], "qwenimage", dual_row("qwenimage"), "single", ()
    )
    args, kwargs = block_calls(model, "transformer_blocks", torch.float16)[0]
    kwargs["hidden_states"] = kwargs["hidden_states"] * 0 + 65504
    block.img_mlp.net[2].bias.data.fill_(60000)
    with torch.no_grad():
        assert all(stream.isfinite().all() for stream in block(*args, **kwargs))


def test_only_five_families_have_single_stream_blocks() -> None:
    assert {
        name
        for name, family in FAMILIES.items()
        for row in family.stacks
        if FAMILIES[name].can_single(row.path)
    } == set(SINGLE)
    assert not FAMILIES["flux"].can_single("single_transformer_blocks") and not FAMILIES[
        "flux2"
    ].can_single("transformer_blocks")
    model = family_model("longcat")
    with refused(found="stream single in transformer_blocks of family longcat"):
        students.student_block(
            model.transformer_blocks[0], "longcat", FAMILIES["longcat"].stacks[0], "single", ()
        )


@EVERY
def test_the_class_knows_its_blocks(name: str) -> None:
    cls = students.student_class(name)
    assert cls.single_class.__name__ in cls._no_split_modules
    if name in ("qwenimage", "flux", "hunyuanimage"):
        assert cls.single_class.__name__ in cls._repeated_blocks
    assert (
        models.family_of(
            surgery.student_transformer(
                family_model(name), plan_of(name, {0: {"stream": "single"}})
            )
        ).name
        == name
    )
