"""Six families through their own pipelines: describe, sample, record, measure, build; recorded
inputs on disk.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from tests.refusals import refused
from tests.tiny import SIZE
from tests.tiny_families import family_inputs
from tests.tiny_pipelines import PIPELINES, tiny_pipeline
from workbench import models, plans, register, surgery
from workbench.families import FAMILIES
from workbench.models import Call, Pipeline
from workbench.plugins import unregister
from workbench.records import Plan, Span
from workbench.sensitivity.partial import identity
from workbench.sensitivity.profiling import profile

NAMES = ["qwenimage", *PIPELINES]
EVERY = pytest.mark.parametrize("name", NAMES)
PROMPTS = ["a red circle", "two blue square on the background"]
HOW: dict[str, Any] = {"seeds": [1, 2], "steps": 2, "size": SIZE}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {name: tiny_pipeline(name, root / name) for name in NAMES}


@pytest.fixture(scope="module")
def pipes(folders: dict[str, Path]) -> dict[str, Pipeline]:
    return {name: models.load_pipeline(folder) for name, folder in folders.items()}


def equal(one: Any, other: Any) -> bool:
    """Deep equality, tensors bit for bit, types alike."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) and type(one) is type(other)


@EVERY
def test_a_folder_is_described(
    name: str, folders: dict[str, Path], pipes: dict[str, Pipeline]
) -> None:
    teacher = models.describe(folders[name], "tiny")
    assert sum(f.stat().st_size for f in folders[name].rglob("*") if f.is_file()) < 4e6
    assert (
        teacher.family == name
        and teacher.stacks == models.describe_module(pipes[name].transformer).stacks
    )
    assert teacher.parameters == sum(p.numel() for p in pipes[name].transformer.parameters())
    info = plans.teacher_info(teacher)
    assert info["parameters"] == info["outside"] + sum(sum(s["blocks"]) for s in info["stacks"])
    assert sum(info["streams"].values()) == info["parameters"] - info["outside"]


@EVERY
def test_both_branches_are_recorded_whichever_way_the_pipeline_runs_them(
    name: str, pipes: dict[str, Pipeline]
) -> None:
    """The conditional call of a guided run is the only call of an unguided one: same noise, same
    text.
    """
    guided = list(models.trajectories(pipes[name], PROMPTS, guidance=3, **HOW))
    plain = list(models.trajectories(pipes[name], PROMPTS, guidance=1, **HOW))
    branches = ["cond", "uncond"] if FAMILIES[name].negative else ["cond"]
    assert [call.branch for call in guided] == branches * 2 and [call.branch for call in plain] == [
        "cond"
    ] * 2
    assert (
        guided[0].timestep == plain[0].timestep
        and 998 < guided[0].timestep <= 1000 > guided[-1].timestep >= 0
    )
    if FAMILIES[name].negative:
        first, shared = plain[0].kwargs, {key: guided[0].kwargs[key] for key in plain[0].kwargs}
        assert equal(shared, first) and not equal(guided[1].kwargs, guided[0].kwargs)
        halves = [models.prediction(pipes[name].transformer(**call.kwargs)) for call in guided[:2]]
        assert not torch.equal(*halves) and halves[0].shape[0] == 2


@EVERY
def test_pictures(name: str, pipes: dict[str, Pipeline]) -> None:
    together, apart = (
        [
            np.asarray(image, int)
            for images in models.generate(pipes[name], PROMPTS, guidance=3, batch=batch, **HOW)
            for image in images
        ]
        for batch in (2, 1)
    )
    assert together[0].shape == (SIZE, SIZE, 3)
    for one, other in zip(together, apart, strict=True):
        assert abs(one - other).max() <= 2  # a picture does not depend on its batch
    assert abs(together[0] - together[1]).max() > 4


@EVERY
def test_measured_and_built(
    name: str, folders: dict[str, Path], pipes: dict[str, Pipeline], tmp_path: Path
) -> None:
    teacher = models.describe(folders[name], "tiny")
    calls = list(models.trajectories(pipes[name], PROMPTS, guidance=3, timesteps=1, **HOW))
    found = list(profile(pipes[name].transformer, teacher, calls, edits=["drop"]))[-1].result
    assert len(found.rows) == sum(stack.depth for stack in teacher.stacks) and all(
        row.score > 0 for row in found.rows
    )
    stacks = {
        s.path: [
            Span(blocks=(0, 0)),
            Span(blocks=(1, 2), init="last"),
            *(Span(blocks=(b, b)) for b in range(3, s.depth)),
        ]
        for s in teacher.stacks
    }
    plan = Plan(teacher="tiny", family=name, stacks=stacks)
    list(surgery.build(folders[name], teacher, plan, tmp_path / "student"))
    # stock, without the workbench
    student = DiffusionPipeline.from_pretrained(tmp_path / "student")
    student.set_progress_bar_config(disable=True)
    [picture] = next(
        models.generate(student, PROMPTS[:1], seeds=[1], steps=2, guidance=3, size=SIZE)
    )
    with surgery.applied(pipes[name], plan):
        [preview] = next(
            models.generate(pipes[name], PROMPTS[:1], seeds=[1], steps=2, guidance=3, size=SIZE)
        )
    assert abs(np.asarray(picture, int) - np.asarray(preview, int)).max() <= 1


@EVERY
def test_recorded_inputs_survive_the_disk(
    name: str, pipes: dict[str, Pipeline], tmp_path: Path
) -> None:
    calls = list(models.trajectories(pipes[name], PROMPTS, guidance=3, **HOW))
    again = models.load_inputs(models.save_inputs(calls, tmp_path / "inputs.safetensors"))
    assert [identity(call) for call in again] == [identity(call) for call in calls]
    for one, other in zip(calls, again, strict=True):
        assert equal(one.kwargs, other.kwargs)
        assert (one.timestep, one.group, one.samples, one.branch) == (
            other.timestep,
            other.group,
            other.samples,
            other.branch,
        )
    assert [file.name for file in tmp_path.iterdir()] == ["inputs.safetensors"]


def test_inputs_of_any_family_can_be_recorded(tmp_path: Path) -> None:
    for name in FAMILIES:
        call = Call(family_inputs(name), 500.0, 0, 2, "cond")
        assert equal(
            models.load_inputs(models.save_inputs([call], tmp_path / name))[0].kwargs, call.kwargs
        )


def test_files_that_hold_no_inputs(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    save_file({"x": torch.ones(1)}, tmp_path / "weights")
    for file in ("text", "weights", "nothing"):
        with refused(found=str(tmp_path / file), expected="models.save_inputs"):
            models.load_inputs(tmp_path / file)
    with refused(found="type object", expected="tensors"):
        models.save_inputs([Call({"x": object()}, 0.0, 0, 1, "cond")], tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_sampler_that_is_not_driven_is_refused(
    pipes: dict[str, Pipeline], request: pytest.FixtureRequest
) -> None:
    register("family", "sd3", replace(FAMILIES["sd3"], guidance=None))
    request.addfinalizer(lambda: unregister("family", "sd3"))
    with refused(found="SD3Transformer2DModel", do="models.save_inputs"):
        list(models.trajectories(pipes["sd3"], PROMPTS, guidance=3, **HOW))


def test_variance_channels_are_no_prediction(pipes: dict[str, Pipeline]) -> None:
    [call] = models.trajectories(pipes["pixart"], PROMPTS, guidance=1, timesteps=1, **HOW)
    output = pipes["pixart"].transformer(**call.kwargs)
    assert output[0].shape[1] == 8
    assert torch.equal(models.prediction(output, pipes["pixart"].transformer), output[0][:, :4])
