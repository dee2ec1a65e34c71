"""Every family through the whole command line on a tiny random pipeline: info, plan, build, load in
stock diffusers, profile from prompts, distil five steps while watched, compare.

docs/families.md is made from the rows that this file tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from tests import tiny_parts
from tests.diffusers_configs import DIFFUSERS_CONFIGS
from tests.tiny_parts import transformer
from tests.tiny_pipelines import MORE, PIPELINES, tiny_pipeline
from workbench import models, tasks
from workbench.families import FAMILIES
from workbench.records import Card, DistillSpec, Loss, SensitivityMap, Stage
from workbench.training.batch_source import LatentSource
from workbench.training.encode import latents, pipeline_calls
from workbench.training.encode.cache_writer import cache_prompts

DRIVEN = sorted(name for name, family in FAMILIES.items() if family.guidance and family.inputs)
SIDE = 32
STAGE = Stage(
    name="short",
    inputs="student",
    gradient="full",
    losses={"output": Loss()},
    train="all",
    steps=5,
    batch=2,
    lr=1e-3,
    optimizer="adamw",
)


def prompts_of(name: str) -> str:
    if FAMILIES[name].is_class_conditional:
        return "1\n207\n"
    return "a red circle\ntwo blue square on the background\n"


def every_verb(name: str, tmp_path: Path) -> None:
    """info, plan, build, load in stock diffusers, profile, distil while watched, compare."""
    teacher = tiny_pipeline(name, tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text(prompts_of(name))
    lines = prompts_of(name).splitlines()
    suite = "".join(json.dumps({"prompt": line}) + "\n" for line in lines)
    (tmp_path / "suite.jsonl").write_text(suite)
    DistillSpec(name="five", stages=[STAGE]).save(tmp_path / "five.yaml")
    workspace = tmp_path / "workspace"
    sampled = {"size": SIDE, "sampling_steps": 2}

    def verb(verb_name: str, **spec: Any) -> dict[str, Any]:
        result: dict[str, Any] = tasks.run(verb_name, spec, workspace)
        return result

    info = verb("info", teacher=str(teacher))
    assert info["family"] == name

    found = verb(
        "profile",
        teacher=str(teacher),
        prompts=str(tmp_path / "prompts.txt"),
        timesteps=1,
        edits=["drop"],
        out=str(tmp_path / "map.json"),
        **sampled,
    )
    record = SensitivityMap.load(found["map"])
    blocks = sum(row.depth for row in models.describe(teacher, "t").stacks)
    free = blocks - sum(len(row.pinned) for row in FAMILIES[name].stacks)
    assert free <= len(record.rows) <= blocks
    assert all(np.isfinite(row.score) and row.score > 0 for row in record.rows)
    assert record.measured["steps"] == 2 and record.measured["size"] == SIDE
    few_steps = [kind.about for kind in FAMILIES[name].few_steps]
    sampled_as = record.measured["sampled_as"]
    assert any(words in sampled_as for words in (FAMILIES[name].pipeline, *few_steps))

    depths = {stack.path: stack.depth for stack in models.describe(teacher, "t").stacks}
    keep = {path: max(depth - 1, 1) for path, depth in depths.items()}
    verb("plan", teacher=str(teacher), keep=keep, out=str(tmp_path / "plan.yaml"))
    verb("build", plan=str(tmp_path / "plan.yaml"), out=str(tmp_path / "built"))
    stock = DiffusionPipeline.from_pretrained(tmp_path / "built")
    assert type(stock).__name__ == FAMILIES[name].pipeline

    distilled = verb(
        "distill",
        student=str(tmp_path / "built"),
        spec=str(tmp_path / "five.yaml"),
        data=str(tmp_path / "prompts.txt"),
        prompts=str(tmp_path / "prompts.txt"),
        watch=5,
        out=str(tmp_path / "student"),
        **sampled,
    )
    assert distilled["steps"] == 5 and np.isfinite(distilled["last_loss"])
    card = Card.load(tmp_path / "student" / "card.json")
    assert card.metrics["distill"]["sampling"] == distilled["sampling"]
    assert distilled["sampling"]["steps"] == 2 and distilled["sampling"]["size"] == SIDE
    assert len(list(workspace.rglob("samples/step-*.png"))) == 2

    compared = verb(
        "compare",
        models=[str(teacher), str(tmp_path / "student")],
        suite=str(tmp_path / "suite.jsonl"),
        out=str(tmp_path / "comparison"),
        **sampled,
    )
    assert [row["name"] for row in compared["models"]] == ["teacher", "student"]
    pictures = sorted((tmp_path / "comparison" / "images").rglob("*.png"))
    assert len(pictures) == 4 and Image.open(pictures[0]).size == (SIDE, SIDE)


def test_every_driven_family_has_a_tiny_pipeline() -> None:
    assert {"qwenimage", *PIPELINES, *MORE} == set(DRIVEN)


@pytest.mark.parametrize("name", DRIVEN)
def test_from_info_to_a_comparison(name: str, tmp_path: Path) -> None:
    every_verb(name, tmp_path)


@pytest.mark.parametrize("name", sorted(set(DRIVEN) & DIFFUSERS_CONFIGS.keys()))
def test_from_info_to_a_comparison_with_the_numbers_of_diffusers_tests(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tiny_parts.CONFIGS, name, DIFFUSERS_CONFIGS[name])
    every_verb(name, tmp_path)


@pytest.mark.parametrize("name", DRIVEN)
def test_training_calls_the_transformer_as_the_sampler_does(name: str, tmp_path: Path) -> None:
    """The condition that a batch of training has is the one of the sampler's own call, and the
    empty condition that of its unconditional branch: with and without padding the prediction is
    the same.
    """
    pipe = models.load_pipeline(tiny_pipeline(name, tmp_path / "teacher"))
    prompts = prompts_of(name).splitlines()
    list(cache_prompts(pipe, prompts, tmp_path / "cache", size=SIDE, steps=3, guidance=1.0))
    source = LatentSource.from_folder(tmp_path / "cache", dropout=0.0)
    bucket = source.buckets[0]
    texts = [bucket.sample(number).text for number in range(len(prompts))]
    condition = source.collate(texts, bucket)
    calls = models.trajectories(pipe, prompts, seeds=[0, 1], steps=3, guidance=1, size=SIDE)
    first, second = list(calls)[:2]
    inputs = pipeline_calls.pipeline_inputs(pipe)
    family = FAMILIES[name]
    level, time = source.levels[1], (source.times or source.levels)[1]
    own = {**second.kwargs, **condition, **inputs.constant}
    with torch.no_grad():
        expected = models.prediction(pipe.transformer(**second.kwargs), pipe.transformer)
        found = models.prediction(pipe.transformer(**own), pipe.transformer)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    argument = time * inputs.scale
    if inputs.reverse:
        argument = inputs.scale - argument
    assert float(second.kwargs[inputs.timestep].flatten()[0]) == pytest.approx(argument, rel=2e-3)
    assert 0 < level < 1 and first.timestep > second.timestep
    if family.encoder:
        red = Image.new("RGB", (SIDE, SIDE), "red")
        encoded = latents.encoded(pipe, [red], (SIDE, SIDE))
        assert encoded.shape[1:] == bucket.sample(0).latents.shape
    if family.negative:
        guided = list(
            models.trajectories(
                pipe, prompts[:1], seeds=[0], steps=2, guidance=3, size=SIDE, timesteps=1
            )
        )
        assert [call.branch for call in guided] == ["cond", "uncond"]
        assert source.empty is not None
        empty = {**guided[1].kwargs, **source.collate([source.empty.text], bucket)}
        with torch.no_grad():
            expected = models.prediction(pipe.transformer(**guided[1].kwargs), pipe.transformer)
            found = models.prediction(pipe.transformer(**empty), pipe.transformer)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def test_of_two_transformers_one_is_worked_on_and_the_other_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wan 2.2: steps below the boundary are the other transformer's, and are not recorded."""
    torch.manual_seed(0)
    pipe = MORE["wan"]()
    second = transformer("wan", text_dim=16, num_layers=2, rope_max_seq_len=64)
    pipe.register_modules(transformer_2=second)
    pipe.register_to_config(boundary_ratio=0.6)
    pipe.save_pretrained(tmp_path / "wan")
    depths = [
        models.describe(tmp_path / "wan" / name, "t").stacks[0].depth
        for name in ("transformer", "transformer_2")
    ]
    assert depths == [3, 2] and models.describe(tmp_path / "wan", "t").stacks[0].depth == 3
    loaded = models.load_pipeline(tmp_path / "wan")
    assert "transformer_2 is left as it is" in capsys.readouterr().err
    calls = list(
        models.trajectories(loaded, ["a red circle"], seeds=[0], steps=8, guidance=1, size=SIDE)
    )
    assert 0 < len(calls) < 8 and all(call.timestep >= 600 for call in calls)
