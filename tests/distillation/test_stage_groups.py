"""Stages that train a few blocks at a time: the same weights, in less memory."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from tests.distill_world import World, copy
from workbench.distillation.stage_groups import in_groups
from workbench.records import DistillSpec, Loss, Stage

from .test_stages import FED, FULL, PATH

# a sum over spans and no common clipping: nothing joins the blocks but the samples
APART = FED.model_copy(
    update={"losses": {"feature": Loss(reduction="sum")}, "clip": None, "steps": 2}
)
GROUPED = APART.model_copy(update={"blocks_at_once": 1})


def grouped(world: World, *stages: Stage) -> DistillSpec:
    return in_groups(
        DistillSpec(stages=list(stages), seed=3), {"parent": world.plan, "original": world.plan}
    )


def test_a_group_is_a_stage_of_its_own_with_the_seed_of_the_whole(world: World):
    spec = grouped(world, GROUPED, FULL)
    assert [stage.train for stage in spec.stages] == [{PATH: [0]}, {PATH: [2]}, "all"]
    assert [stage.name for stage in spec.stages] == ["fed 1/2", "fed 2/2", "full"]
    assert [spec.stage_seed(number) for number in range(3)] == [3, 3, 4]
    assert in_groups(spec, {}) is spec


def test_blocks_that_train_one_after_the_other_learn_what_they_learn_together(world: World):
    together, apart = copy(world.student), copy(world.student)
    world.run(APART, student=together, seed=3)
    world.run(*grouped(world, GROUPED).stages, student=apart, seed=3)
    before = world.student.state_dict()
    learned = together.state_dict()
    for name, value in apart.state_dict().items():
        assert torch.equal(value, learned[name]), name
    assert any(not torch.equal(before[name], value) for name, value in learned.items())


def test_blocks_that_depend_on_each_other_are_not_split():
    with pytest.raises(ValidationError, match="inputs: teacher and gradient: span"):
        Stage.model_validate({**FULL.model_dump(), "blocks_at_once": 2})
