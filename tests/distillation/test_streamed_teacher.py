"""A student learns the same from a streamed teacher as from one that is held whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.distill_world import World
from tests.distillation.test_job import given, space
from tests.models.test_packed_weights import rounded
from workbench import models, tasks
from workbench.records import BadInput, Card, DistillSpec, Plan
from workbench.specs import DistillVerbSpec
from workbench.tasks.context import Context
from workbench.tasks.distill_work import DistillWork
from workbench.workspace.store import Store

from .test_stages import FED, FULL

__all__ = ["space"]
SHORT = [
    FED.model_copy(update={"steps": 3, "batch": 2}),
    FULL.model_copy(update={"steps": 2, "batch": 2, "warmup": 0}),
]


def assert_same_losses(world: World, teachers: Sequence[nn.Module]) -> None:
    """Five steps of the same student have the same losses from each teacher, bit for bit."""
    start = {name: tensor.clone() for name, tensor in world.student.state_dict().items()}
    losses = []
    for world.teacher in teachers:
        world.student.load_state_dict(start)
        rows = [progress.metrics for progress in world.run(*SHORT) if progress.metrics]
        losses.append([row["loss"] for row in rows])
    assert len(losses[0]) == 5 and losses[0] == losses[1]


def test_five_steps_have_the_losses_of_a_whole_teacher(world: World, tmp_path: Path) -> None:
    world.teacher.save_pretrained(tmp_path)  # type: ignore[operator]
    teachers = [models.load_transformer(tmp_path, streamed=streamed) for streamed in (False, True)]
    assert_same_losses(world, teachers)
    assert all(p.isfinite().all() for p in world.student.parameters())


def test_the_verb_trains_the_same_student_and_the_card_says_how(space: Path) -> None:
    DistillSpec(name="short", stages=SHORT).save(space / "short.yaml")
    states = []
    for placement in ("whole", "streamed"):
        out = space / placement
        options = {"spec": str(space / "short.yaml"), "placement": placement, "watch": 3}
        result = tasks.run("distill", given(space, placement, **options), space / "workspace")
        assert result["placement"] == placement
        assert Card.load(out / "card.json").metrics["distill"]["placement"] == placement
        [weights] = (out / "transformer").glob("*.safetensors")
        states.append(load_file(weights))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_an_original_that_was_loaded_for_its_pipeline_is_not_loaded_again(space: Path) -> None:
    spec = DistillVerbSpec.parse(given(space, "once"))
    context = Context(Store(space / "workspace"))
    work = DistillWork.of(spec, context)
    plan = Plan.load(space / "plan.yaml")
    first = models.load_transformer(space / "teacher")
    work.held = work.choose_placement(context)
    work.line.__dict__["original"] = (work.line.teacher, plan)
    work.load_models(context, first)
    assert work.original is not None and work.original[0] is first
    assert work.teacher is not first


def test_a_packed_teacher_trains_as_one_with_rounded_weights_and_the_card_says_so(
    world: World, tmp_path: Path
) -> None:
    world.teacher.save_pretrained(tmp_path)  # type: ignore[operator]
    teachers = [
        rounded(models.load_transformer(tmp_path), "int8"),
        models.load_transformer(tmp_path, weights="int8"),
    ]
    assert_same_losses(world, teachers)


def test_the_verb_holds_its_teacher_packed_and_refuses_to_split_it(space: Path) -> None:
    DistillSpec(name="short", stages=SHORT[:1]).save(space / "short.yaml")
    options = {"spec": str(space / "short.yaml"), "teacher_weights": "nf4", "watch": 0}
    result = tasks.run("distill", given(space, "packed", **options), space / "workspace")
    assert result["teacher_weights"] == "nf4"
    card = Card.load(space / "packed" / "card.json")
    assert card.metrics["distill"]["teacher_weights"] == "nf4"
    for more in ({"shard": True}, {"placement": "streamed"}):
        spec = DistillVerbSpec.parse(given(space, "both", **options, **more))
        with pytest.raises(BadInput) as refused:
            DistillWork.of(spec, Context(Store(space / "workspace")))
        assert "--teacher-weights nf4" in refused.value.found


def test_a_streamed_teacher_cannot_be_split_between_processes_too(space: Path) -> None:
    spec = DistillVerbSpec.parse(given(space, "both", shard=True, placement="streamed"))
    with pytest.raises(BadInput) as refused:
        DistillWork.of(spec, Context(Store(space / "workspace")))
    assert "--shard" in refused.value.found
