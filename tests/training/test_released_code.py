"""What recipes mark [C], "released code", against that code: the same tensors, the same number.

The functions below repeat what the releases compute, in their order: HierarchicalPrune
(github.com/SamsungLabs/HierarchicalPrune at d960264, distil_sd3.py, utils/args.py, scripts) and
PPCL (github.com/OPPO-Mente-Lab/Qwen-Image-Pruning at 4d054b3, script/train_phase.py,
src/transformer_qwenimage_attn.py).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)
from torch.nn.functional import mse_loss

from workbench.distillation.trainable import chosen_blocks, student_places
from workbench.models.blocks import State
from workbench.plans import spans_of_kept
from workbench.recipes import table as recipes
from workbench.records import Plan, Span, Stage
from workbench.training.builtin_losses import SpanStates, distance, feature, reduced
from workbench.training.optim import Optimizers, lr_share
from workbench.training.random_streams import draws, noise_level

IMAGE, TEXT = "hidden_states", "encoder_hidden_states"
PRUNE = [recipes.load(f"hierarchicalprune-{share}") for share in (20, 30)]
PPCL = recipes.load("ppcl")


def random_state(seed: int, text: bool = True) -> State:
    g = torch.Generator().manual_seed(seed)
    state = {IMAGE: torch.randn(2, 6, 8, generator=g)}
    if text:
        state[TEXT] = 3 * torch.randn(2, 4, 8, generator=g)
    return state


def ours(stage: Stage, students: list[State], teachers: list[State]) -> float:
    """The stage's feature loss, weighted, over blocks that have these states."""
    loss = stage.losses["feature"]
    values = []
    for student, teacher in zip(students, teachers, strict=True):
        values.append(feature(SpanStates(student, teacher, (TEXT, IMAGE)), loss))
    return float(loss.weight * reduced(values, loss))


# --- HierarchicalPrune ----------------------------------------------------------------------------


def released_feature_loss(students: list[State], teachers: list[State]) -> torch.Tensor:
    """loss_kd_feat of distil_sd3.py for KD_FEAT_TYPE LFImg,LFCond: a sum over blocks and streams."""
    terms = []
    for student, teacher in zip(students, teachers, strict=True):
        for name in (TEXT, IMAGE):
            if name in student:
                error = (student[name] - teacher[name]) ** 2
                terms.append(torch.mean(error.reshape(error.shape[0], -1), 1).mean())
    return sum(terms, torch.zeros(()))


@pytest.mark.parametrize("recipe", PRUNE, ids=lambda recipe: recipe.name)
def test_the_feature_loss_of_hierarchicalprune_is_the_releases(recipe: recipes.Recipe):
    students = [random_state(i, text=i < 2) for i in range(3)]  # the last block has no text output
    teachers = [random_state(10 + i, text=i < 2) for i in range(3)]
    released = 1e-4 * float(released_feature_loss(students, teachers))
    assert ours(recipe.distill.stages[0], students, teachers) == pytest.approx(released, rel=1e-6)


@pytest.mark.parametrize("recipe", PRUNE, ids=lambda recipe: recipe.name)
def test_the_output_loss_of_hierarchicalprune_is_the_releases(recipe: recipes.Recipe):
    loss = recipe.distill.stages[0].losses["output"]
    student, teacher = random_state(1)[IMAGE], random_state(2)[IMAGE]
    weighting = compute_loss_weighting_for_sd3("logit_normal", sigmas=torch.rand(2, 1, 1))
    error = weighting.float() * (student - teacher) ** 2
    released = torch.mean(error.reshape(2, -1), 1).mean()
    assert float(loss.weight * distance(student, teacher, loss)) == pytest.approx(float(released))
    assert set(recipe.distill.stages[0].losses) == {"output", "feature"}  # lambda_task is 0


def released_training(depth: int, removed: list[int]) -> list[int]:
    """Kept blocks that train: in the order of the modules, those after the first identity block."""
    grad = False
    trained = []
    for block in range(depth):
        if grad and block not in removed:
            trained.append(block)
        if block in removed:
            grad = True
    return trained


@pytest.mark.parametrize(
    ("depth", "removed"),
    [
        (8, [3, 4, 6]),
        (38, [25, 26, 27, 28, 29, 31, 32, 33, 34, 35]),
        (24, [13, 15, 16, 18, 20, 21]),
        (6, [5]),
        (6, [0, 1, 4]),
    ],
)
def test_hierarchicalprune_trains_what_the_release_trains(depth: int, removed: list[int]):
    path = "transformer_blocks"
    spans = spans_of_kept(depth, set(range(depth)) - set(removed), path)
    plan = Plan(teacher="x", family="sd3", stacks={path: spans})
    stage = PRUNE[0].distill.stages[0]
    chosen = chosen_blocks(student_places(plan), plan, stage)
    assert [spans[index].source[0] for _, index in chosen] == released_training(depth, removed)


def test_the_release_trains_blocks_5_and_7_of_8_where_3_4_and_6_are_removed():
    assert released_training(8, [3, 4, 6]) == [5, 7]


def test_an_averaged_block_trains_though_it_comes_before_the_first_removed_one():
    plan = Plan(
        teacher="x",
        family="sd3",
        stacks={"s": [Span(blocks=(0, 0)), Span(blocks=(1, 2), init="mean"), Span(blocks=(3, 3))]},
    )
    stage = Stage(name="x", train="after-first-cut")
    assert chosen_blocks(student_places(plan), plan, stage) == [("s", 1), ("s", 2)]


@pytest.mark.parametrize("recipe", PRUNE, ids=lambda recipe: recipe.name)
def test_the_noise_levels_of_hierarchicalprune_are_the_releases(recipe: recipes.Recipe):
    """Its trainer draws indices into the scheduler's own training levels, which SD3.5 shifts by 3."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    torch.manual_seed(0)
    u = compute_density_for_timestep_sampling("logit_normal", 20_000, 0.0, 1.0, 1.29)
    released = scheduler.sigmas[(u * 1000).long()].numpy()
    timesteps = recipe.distill.stages[0].timesteps
    levels = [noise_level(draws(0, i), timesteps, ()) for i in range(20_000)]
    quantiles = np.linspace(0.05, 0.95, 19)
    difference = np.quantile(released, quantiles) - np.quantile(levels, quantiles)
    assert np.abs(difference).max() < 0.02


def optimizers(stage: Stage) -> Optimizers:
    p = torch.nn.Parameter(torch.ones(3))
    return Optimizers(
        [("p", p)],
        stage.optimizer,
        stage.lr,
        stage.weight_decay,
        betas=stage.betas,
        schedule=lambda step: lr_share(step, stage.steps, stage.warmup, stage.schedule),
    )


@pytest.mark.parametrize("recipe", PRUNE, ids=lambda recipe: recipe.name)
def test_the_optimizer_of_hierarchicalprune_is_the_releases(recipe: recipes.Recipe):
    """Ten steps of ours and of its AdamW (utils/args.py, run_distil_sd3L_kd.sh) end alike."""
    stage = recipe.distill.stages[0]
    both = optimizers(stage)
    p = both.named["p"]
    q = torch.nn.Parameter(torch.ones(3))
    released = torch.optim.AdamW([q], lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4, eps=1e-8)
    schedule = get_scheduler("constant", released, num_warmup_steps=0)
    for step in range(10):
        gradient = torch.randn(3, generator=torch.Generator().manual_seed(step))
        p.grad, q.grad = gradient.clone(), gradient.clone()
        both.step()
        released.step()
        schedule.step()
    assert torch.equal(p, q)
    assert (stage.steps, stage.batch, stage.clip, stage.precision) == (64_000, 64, 1.0, "bfloat16")


def test_the_released_list_keeps_what_the_release_keeps():
    for recipe in PRUNE:
        (listed,) = recipe.plan.released
        assert set(range(38)) - set(listed.removed) == {*range(25), 30, 36, 37}
    # what the release's plan leaves of depth and parameters, which the shares stand for
    assert PRUNE[1].plan.keep == pytest.approx(28 / 38, abs=0.005)


# --- PPCL -----------------------------------------------------------------------------------------


def released_align_loss(students: list[State], teachers: list[State]) -> torch.Tensor:
    """align_loss of distill_forward: a sum over intervals and streams of unit states' distances."""
    loss = torch.zeros(())
    for student, teacher in zip(students, teachers, strict=True):
        for name in (TEXT, IMAGE):
            unit = student[name] / torch.norm(student[name], p=2, dim=-1, keepdim=True)
            goal = teacher[name] / torch.norm(teacher[name], p=2, dim=-1, keepdim=True)
            loss = loss + mse_loss(unit, goal, reduction="none").sum(dim=-1).mean()
    return loss


def test_the_interval_loss_of_ppcl_is_the_releases():
    students = [random_state(i) for i in range(3)]
    teachers = [random_state(10 + i) for i in range(3)]
    released = float(released_align_loss(students, teachers))
    assert ours(PPCL.distill.stages[0], students, teachers) == pytest.approx(released, rel=1e-6)


def test_an_interval_of_ppcl_starts_as_its_middle_block():
    (listed,) = PPCL.plan.released
    for first, last in listed.intervals:
        span = Span(blocks=(first, last), init=PPCL.plan.init)
        assert span.source == ((first + last) // 2,)
    removed = sum(last - first for first, last in listed.intervals)
    assert 60 - removed == 35 and PPCL.plan.keep == pytest.approx(35 / 60, abs=0.001)


def test_the_learning_rate_of_ppcl_is_the_releases():
    """lr 1e-5, cosine after 16 steps; during those ours is a step ahead, as it does not start at 0."""
    stage = PPCL.distill.stages[0]
    assert (stage.lr, stage.warmup, stage.clip) == (1e-5, 16, None)
    p = torch.nn.Parameter(torch.ones(1))
    released = torch.optim.AdamW([p], lr=1e-5)
    schedule = get_scheduler("cosine", released, num_warmup_steps=16, num_training_steps=6000)
    for step in range(6000):
        if step in (16, 17, 1000, 5999):
            share = lr_share(step, 6000, stage.warmup, stage.schedule)
            assert stage.lr * share == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        released.step()
        schedule.step()


# --- marks ----------------------------------------------------------------------------------------


def test_every_recipe_with_a_released_mark_is_tested_here():
    folder = Path(recipes.__file__).parent
    marked = {file.stem for file in folder.glob("*.yaml") if "# [C]" in file.read_text("utf-8")}
    same_training = {"hierarchicalprune-30+"}
    assert marked == {"hierarchicalprune-20", "hierarchicalprune-30", "ppcl"} | same_training
    for name in same_training:
        stages = recipes.load(name).distill.stages
        assert stages == recipes.load(name.removesuffix("+")).distill.stages
    assert math.isclose(PRUNE[0].plan.keep, 0.8)
