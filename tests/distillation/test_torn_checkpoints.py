"""Checkpoints that a kill or a full disk tore: an older whole one is taken, and drafts go."""

from __future__ import annotations

import os
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from tests.distill_world import World
from tests.refusals import refused
from workbench.records import Stage

STAGE = Stage(
    name="full",
    gradient="full",
    inputs="student",
    losses={"output": {}},
    train="all",
    steps=6,
    batch=2,
    lr=1e-3,
    ema=0.9,
)
DEAD = 2**22 + 1  # no process has this number


def parameters(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def stopped_at(world: World, folder: Path, step: int) -> None:
    """A run that writes a checkpoint at every step and is stopped."""
    count = iter(range(100))
    world.run(
        STAGE,
        student=deepcopy(world.student),
        checkpoint_folder=folder,
        checkpoint_every=0,
        keep=3,
        stop=lambda: next(count) >= step,
    )


@pytest.fixture
def whole(world: World) -> list[torch.Tensor]:
    student = deepcopy(world.student)
    world.run(STAGE, student=student)
    return parameters(student)


@pytest.mark.parametrize("file", ["student.safetensors", "optimizer.pt", "run.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_a_torn_checkpoint_is_passed_over(
    world: World,
    whole: list[torch.Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: str,
):
    stopped_at(world, tmp_path / "c", 4)
    newest = sorted((tmp_path / "c").glob("step-*"))[-1]
    path = newest / file
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    student = deepcopy(world.student)
    last = world.run(STAGE, student=student, checkpoint_folder=tmp_path / "c", resume=True)[-1]
    assert last.result["steps"] == 6
    [line] = capsys.readouterr().err.splitlines()
    assert str(newest) in line and "damaged" in line
    assert all(map(torch.equal, parameters(student), whole))


def test_nothing_starts_anew_where_all_are_torn(world: World, tmp_path: Path):
    stopped_at(world, tmp_path / "c", 2)
    for file in (tmp_path / "c").glob("step-*/student.safetensors"):
        file.write_bytes(b"")
    with refused(found="damaged", do="--resume"):
        world.run(
            STAGE,
            student=deepcopy(world.student),
            checkpoint_folder=tmp_path / "c",
            resume=True,
        )


def test_drafts_of_killed_attempts_go_and_those_of_the_living_stay(world: World, tmp_path: Path):
    stopped_at(world, tmp_path / "c", 2)
    killed = tmp_path / "c" / f".step-00000003.{DEAD}"
    living = tmp_path / "c" / f".step-00000003.{os.getppid()}"
    for draft in (killed, living):
        draft.mkdir()
        (draft / "student.safetensors").write_bytes(b"half")
    count = iter(range(100))
    world.run(
        STAGE,
        student=deepcopy(world.student),
        checkpoint_folder=tmp_path / "c",
        resume=True,
        stop=lambda: next(count) >= 1,
    )
    assert not killed.exists()
    assert living.exists()
    shutil.rmtree(living)
