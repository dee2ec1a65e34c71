"""The papers' own cases, on the published configs of their teachers. No weights."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch

from tests.refusals import refused
from workbench import models, plans
from workbench.recipes import table as recipes
from workbench.recipes.recipe import recipe_of
from workbench.records import BadInput, Plan, Row, SensitivityMap, Teacher
from workbench.sensitivity.importing import import_table

TABLE = Path(__file__).parents[3] / "shared" / "data" / "sd35_large_turbo_hpsv2_ablation.json"
PATH = "transformer_blocks"
SD35_LARGE = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
    "pos_embed_max_size": 192,
}
REMOVED = [*range(25, 30), *range(31, 36)]


def depth_alone(made: Plan) -> bool:
    """Whether a plain diffusers class of smaller depth holds the student."""
    return all(s.stream is None and not s.drop for spans in made.stacks.values() for s in spans)


def on_meta(cls: type, config: dict) -> Teacher:
    with torch.device("meta"):
        return models.describe_module(cls(**config))


@pytest.fixture(scope="module")
def qwen() -> Teacher:
    return on_meta(diffusers.QwenImageTransformer2DModel, {})


@pytest.fixture(scope="module")
def sd35() -> Teacher:
    return on_meta(diffusers.SD3Transformer2DModel, SD35_LARGE)


def a_map(teacher: Teacher, parts: tuple[str, ...] = ()) -> SensitivityMap:
    """Scores that differ from block to block; parts cost a tenth."""
    rows = [
        Row(
            stack=s.path,
            block=b,
            edit=edit,
            timestep=t,
            score=(1 + (7 * b) % 11) * (0.1 if edit != "drop" else 1),
        )
        for s in teacher.stacks
        for b in range(s.depth)
        for edit in ("drop", *(f"drop:{p}" for p in parts))
        for t in (900.0, 100.0)
    ]
    return SensitivityMap(teacher=teacher.name, fingerprint="", family=teacher.family, rows=rows)


def test_amber_10b_of_qwen_image(qwen: Teacher):
    made = recipes.load("amber-10b").propose(qwen, a_map(qwen))
    assert plans.parameters(made, qwen) == 10_235_462_208 and depth_alone(made)
    assert {s.init for s in made.stacks[PATH] if len(s) > 1} == {"mean"}


def test_amber_6b_of_qwen_image_in_one_step(qwen: Teacher):
    recipe = recipes.load("amber-6b")
    made = recipe.propose(qwen, a_map(qwen))
    assert plans.parameters(made, qwen) == 6_157_486_656  # 6 dual, 24 single
    assert plans.plan_info(made, qwen).single == {PATH: 24}
    # 10 dual, 20 single
    assert (
        plans.parameters(recipe.propose(qwen, a_map(qwen), single_from=10), qwen) == 6_837_149_248
    )


def test_low_rank_modulation_buys_qwen_image_more_dual_stream_blocks(qwen: Teacher):
    """At the sizes of Amber-10B and Amber-6B; a block of rank 8 has 226,929,152 parameters."""
    for name, blocks, published in (("amber-10b+", 44, 30), ("amber-6b+", 27, 6)):
        made = recipes.load(name).propose(qwen, a_map(qwen))
        spans = made.stacks[PATH]
        assert len(spans) == blocks > published
        assert plans.parameters(made, qwen) == qwen.outside + blocks * 226_929_152
        assert {(span.rank, span.stream, span.drop) for span in spans} == {(8, None, ())}


def test_low_rank_modulation_alone_reaches_hierarchicalprunes_size_on_qwen_image(qwen: Teacher):
    made = recipes.load("hierarchicalprune-30+").propose(qwen, a_map(qwen))
    assert made.depth() == {PATH: 60} and plans.parameters(made, qwen) < 0.71 * qwen.parameters


def test_amber_6b_on_the_student_of_its_first_step_removes_no_block():
    parent = on_meta(diffusers.QwenImageTransformer2DModel, {"num_layers": 30})
    assert parent.parameters == 10_235_462_208
    made = recipes.load("amber-6b").propose(parent, student=True)
    assert made.depth() == {PATH: 30} and plans.parameters(made, parent) == 6_157_486_656
    assert all(len(span) == 1 for span in made.stacks[PATH])


@pytest.mark.parametrize("name", ["hierarchicalprune-20", "hierarchicalprune-30"])
def test_hierarchicalprunes_released_list_on_sd35_large(name: str, sd35: Teacher):
    made = recipes.load(name).propose(sd35)
    kept = [span.source[0] for span in made.stacks[PATH]]
    assert kept == [b for b in range(38) if b not in REMOVED]
    assert plans.parameters(made, sd35) == sd35.parameters - sum(
        sd35.stack(PATH).block_parameters(b) for b in REMOVED
    )
    assert depth_alone(made) and made.origin == {"recipe": name, "rule": "released list"}


def test_hierarchicalprune_30_drops_parts_after_the_released_list(sd35: Teacher):
    made = recipes.load("hierarchicalprune-30").propose(
        sd35, a_map(sd35, ("text.mlp", "text.modulation"))
    )
    assert [span.source[0] for span in made.stacks[PATH]] == [
        b for b in range(38) if b not in REMOVED
    ]
    ratio = plans.parameters(made, sd35) / sd35.parameters
    assert 0.70 < ratio <= 0.71
    assert {part for span in made.stacks[PATH] for part in span.drop} <= {
        "text.mlp",
        "text.modulation",
    }
    assert not made.stacks[PATH][-1].drop  # the last block is pinned


@pytest.mark.skipif(not TABLE.exists(), reason="the published table is not here")
def test_hierarchicalprune_30_with_the_published_table_of_parts(sd35: Teacher):
    scores = import_table(TABLE, sd35, 30.29)
    made = recipes.load("hierarchicalprune-30").propose(sd35, scores)
    assert [span.source[0] for span in made.stacks[PATH]] == [
        b for b in range(38) if b not in REMOVED
    ]
    assert 0.70 < plans.parameters(made, sd35) / sd35.parameters <= 0.71
    # the cheapest part of the paper's Figure 4
    assert any("text.mlp" in span.drop for span in made.stacks[PATH])


def test_hierarchicalprune_on_another_depth_goes_by_the_rule(qwen: Teacher):
    made = recipes.load("hierarchicalprune-20").propose(qwen, a_map(qwen))
    assert made.depth() == {PATH: 48} and made.origin["rule"] == "hierarchical"
    with refused(found="sensitivity map", do="workbench profile"):
        recipes.load("hierarchicalprune-20").propose(qwen)


def test_ppcls_released_intervals_on_qwen_image(qwen: Teacher):
    made = recipes.load("ppcl").propose(qwen)
    merged = [span for span in made.stacks[PATH] if len(span) > 1]
    assert made.depth() == {PATH: 35} and len(merged) == 13
    assert {b for s in made.stacks[PATH] if len(s) == 1 for b in s.source} == {
        0,
        1,
        2,
        13,
        14,
        28,
        *range(31, 42),
        44,
        50,
        51,
        58,
        59,
    }
    assert [(s.blocks, s.init, s.source) for s in merged[:2]] == [
        ((3, 4), "middle", (3,)),
        ((5, 7), "middle", (6,)),
    ]
    assert plans.parameters(made, qwen) == qwen.parameters - 25 * 339_831_296


def test_a_size_of_ones_own_overrides_a_released_list(qwen: Teacher, sd35: Teacher):
    made = recipes.load("hierarchicalprune-20").propose(sd35, a_map(sd35), keep={PATH: 34})
    assert made.depth() == {PATH: 34} and made.origin["rule"] == "hierarchical"


def test_the_free_cut_of_qwen_image_is_found_and_made(qwen: Teacher):
    identity = plans.identity(qwen)
    [cut] = plans.free_cuts(identity, qwen)
    assert cut == plans.FreeCut(PATH, 59, "text.output", 132_154_496)
    made = plans.cut_free(identity, qwen)
    assert qwen.parameters - plans.parameters(made, qwen) == 132_154_496
    assert plans.free_cuts(made, qwen) == []
    hybrid = recipes.load("amber-6b").propose(qwen, a_map(qwen))
    assert plans.free_cuts(hybrid, qwen) == []  # in a single-stream block everything is read


@pytest.mark.parametrize(
    "plan, field",
    [
        ({"rule": "magic"}, "rule is 'magic'"),
        ({"rule": "uniform", "kept": 1}, "unknown key kept"),
        ({"rule": "uniform", "student": 3}, "student is 3"),
        ({"rule": "uniform", "student": {"keep": 2}}, "invalid recipe"),
        ({"rule": "uniform", "budget": "weight=1"}, "weight=1"),
        ({"rule": "uniform", "released": [{"family": "sd3"}]}, "without released.0.stack"),
    ],
)
def test_a_bad_plan_part_is_one_line(plan: dict, field: str):
    data = {"paper": "", "about": "x", "plan": plan, "distill": {"stages": []}}
    with pytest.raises(BadInput) as error:
        recipe_of(data, "mine")
    assert field in error.value.found
