"""Runs: checkpoints, resuming, stopping, failing, and the folder that comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.distill_world import World, copy, make_plan
from tests.refusals import refused
from workbench import models, surgery
from workbench.distillation.loop import distill
from workbench.records import Card, DistillSpec, Loss, Span

from .test_stages import FED, FULL

FED = FED.model_copy(update={"steps": 3, "ema": 0.9, "batch": 4})
FULL = FULL.model_copy(
    update={"steps": 4, "ema": 0.9, "batch": 4, "warmup": 1, "schedule": "cosine"}
)


def states_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("after", [2, 3, 5])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(
    world: World, tmp_path: Path, after: int, optimizer: str
):
    stages = [stage.model_copy(update={"optimizer": optimizer}) for stage in (FED, FULL)]
    whole, halves = copy(world.student), copy(world.student)
    result = world.run(*stages, student=whole)[-1].result
    polls = iter(range(100))
    stopped = world.run(
        *stages, student=halves, checkpoint_folder=tmp_path / "c", stop=lambda: next(polls) >= after
    )[-1]
    assert stopped.result == {"stopped": True, "step": after}
    torch.manual_seed(99)
    resumed = copy(world.student)
    rows = world.run(*stages, student=resumed, checkpoint_folder=tmp_path / "c", resume=True)
    assert rows[0].step == after + 1 and states_equal(whole, resumed)
    assert (
        rows[-1].result["last_loss"] == result["last_loss"]
        and rows[-1].result["first_loss"] == result["first_loss"]
    )


def test_every_step_reports_and_the_newest_checkpoints_are_kept(world: World, tmp_path: Path):
    folder, seen = tmp_path / "c", []
    spec = DistillSpec(stages=[FED, FULL])
    for progress in distill(
        world.student,
        world.teacher,
        world.plan,
        spec,
        world.source,
        checkpoint_folder=folder,
        checkpoint_every=0,
    ):
        if progress.metrics:
            seen.append(
                (
                    progress.step,
                    progress.total,
                    progress.metrics["stage"],
                    sorted(p.name for p in folder.glob("*")),
                )
            )
            assert {
                "loss",
                "feature",
                "loss/transformer_blocks.2",
                "lr",
                "samples_per_second",
            } <= set(progress.metrics)
            json.dumps(progress.metrics)
    assert [row[:3] for row in seen] == [(i, 7, "fed" if i <= 3 else "full") for i in range(1, 8)]
    assert seen[-1][3] == ["step-00000005", "step-00000006"] and not folder.exists()


def test_a_checkpoint_of_another_spec_is_refused(world: World, tmp_path: Path):
    world.run(FED, student=copy(world.student), checkpoint_folder=tmp_path / "c", stop=lambda: True)
    with refused(found="step-00000000", do="--resume"):
        world.run(FULL, checkpoint_folder=tmp_path / "c", resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_is_named(world: World, tmp_path: Path):
    runs = iter(
        distill(
            world.student,
            world.teacher,
            world.plan,
            DistillSpec(stages=[FED]),
            world.source,
            checkpoint_folder=tmp_path / "c",
            checkpoint_every=0,
        )
    )
    next(runs)
    with torch.no_grad():
        world.student.transformer_blocks[2].img_mlp.net[2].bias.fill_(float("nan"))
    with refused(
        found="'fed': loss nan at step 2, first in span 2 (teacher blocks 3-5 of",
        do="step-00000001",
    ):
        list(runs)


def test_a_gradient_that_is_no_number_is_named_where_it_came_from(world: World):
    """The loss is finite; blocks before get their gradients from the one at fault."""
    world.student.transformer_blocks[1].attn.to_v.weight.register_hook(
        lambda gradient: gradient * float("nan")
    )  # type: ignore[union-attr, index]
    name = "transformer_blocks.1.attn.to_v.weight"
    for stage in (FULL, FULL.model_copy(update={"accumulate": 2, "clip": 1.0})):
        with refused(found=f"at step 1, first in the gradient of {name}", do="none"):
            world.run(stage)


def test_the_average_is_what_comes_out(world: World):
    fast = world.run(FED.model_copy(update={"ema": None}), student=(raw := copy(world.student)))
    world.run(FED, student=world.student)
    assert not states_equal(raw, world.student) and fast[-1].result["steps"] == 3


def test_the_student_folder_is_a_pipeline_again(
    world: World, tmp_path: Path, pipeline_folder: Callable[[int], Path]
):
    parent = pipeline_folder(3)
    teacher_card = models.describe(parent, "tiny")
    plan = make_plan(Span(blocks=(0, 0)), Span(blocks=(1, 2), init="mean"))
    list(surgery.build(parent, teacher_card, plan, tmp_path / "student", dtype=torch.bfloat16))
    student, teacher = (
        models.load_transformer(tmp_path / "student"),
        models.load_transformer(parent),
    )
    spec = DistillSpec(name="try", stages=[FULL.model_copy(update={"losses": {"output": Loss()}})])
    rows = list(
        distill(
            student,
            teacher,
            plan,
            spec,
            world.source,
            out=tmp_path / "out",
            base=tmp_path / "student",
        )
    )
    result = rows[-1].result
    assert {"student", "steps", "seconds", "samples_per_second", "first_loss", "last_loss"} <= set(
        result
    )
    assert result["student"] == str(tmp_path / "out")
    card = Card.load(tmp_path / "out" / "card.json")
    assert (
        card.teacher_fingerprint == teacher_card.fingerprint
        and card.spec
        and card.spec["name"] == "try"
    )
    assert card.metrics["distill"]["steps"] == 4
    loaded = models.load_transformer(tmp_path / "out")
    for name, tensor in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.to(torch.bfloat16).float())
    assert (tmp_path / "out/vae/config.json").samefile(parent / "vae/config.json")
    assert not list(tmp_path.glob(".out*")) and not (tmp_path / "out.checkpoints").exists()
    assert next(
        models.generate(
            models.load_pipeline(tmp_path / "out"),
            ["a red circle"],
            seeds=[0],
            steps=2,
            guidance=1,
            size=32,
        )
    )
