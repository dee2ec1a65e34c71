"""Students with low-rank modulation train, with the factors trained or frozen, and resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.distill_world import World, copy, make_plan, source
from tests.distillation.test_stages import FED, FULL
from workbench import plans, surgery
from workbench.models import describe_module
from workbench.records import Span
from workbench.training.batch_source import LatentSource

assert source  # the fixture
STACK = "transformer_blocks"


@pytest.fixture
def world(source: LatentSource) -> World:
    """A pair merged, two blocks dropped, every block's modulation of rank 4."""
    teacher = tiny.tiny_transformer(depth=6)
    spans = (Span(blocks=(0, 1), init="mean", gain=2), Span(blocks=(2, 2)), Span(blocks=(3, 5)))
    plan = plans.with_modulation(make_plan(*spans), describe_module(teacher), 4)
    return World(teacher, plan, surgery.student_transformer(teacher, plan), source)


def changed(world: World, student: torch.nn.Module) -> set[str]:
    """Names of the parameters that training moved."""
    before = dict(world.student.named_parameters())
    return {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("train", ["all", "merged"])
def test_the_factors_train(world: World, train: str) -> None:
    student = copy(world.student)
    world.run(FULL.model_copy(update={"train": train, "steps": 3}), student=student)
    moved = changed(world, student)
    for block in range(3):
        for factor in ("down.weight", "up.weight", "up.bias"):
            assert f"{STACK}.{block}.img_mod.1.{factor}" in moved


def test_the_factors_of_frozen_blocks_stay(world: World) -> None:
    student = copy(world.student)
    stage = FULL.model_copy(update={"train": {STACK: [0]}, "steps": 3})
    world.run(stage, student=student)
    moved = changed(world, student)
    assert f"{STACK}.0.img_mod.1.up.weight" in moved
    assert all(name.startswith(f"{STACK}.0.") for name in moved)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_resumes_bit_for_bit(world: World, tmp_path: Path, optimizer: str) -> None:
    stage = FED.model_copy(update={"optimizer": optimizer, "steps": 3})
    whole, halves, resumed = (copy(world.student) for _ in range(3))
    world.run(stage, student=whole)
    polls = iter(range(100))
    folder = tmp_path / "checkpoints"
    world.run(stage, student=halves, checkpoint_folder=folder, stop=lambda: next(polls) >= 2)
    world.run(stage, student=resumed, checkpoint_folder=folder, resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_optimizer_has_fewer_parameters(world: World) -> None:
    whole = world.plan.model_copy(
        update={
            "modulation": None,
            "stacks": {
                STACK: [
                    span.model_copy(update={"modulation": None})
                    for span in world.plan.stacks[STACK]
                ]
            },
        }
    )
    teacher = describe_module(world.teacher)
    count = sum(p.numel() for p in world.student.parameters())
    assert count == plans.parameters(world.plan, teacher) < 0.8 * plans.parameters(whole, teacher)
