"""Describing, loading and sampling a teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.refusals import refused
from tests.tiny import SIZE
from workbench import models
from workbench.models import Call, Pipeline
from workbench.records import BadInput, Teacher

PROMPTS = ["a red circle", "two blue square on the background", "a green text"]


def test_describe_agrees_with_the_loaded_model(teacher: Teacher, pipe: Pipeline) -> None:
    assert teacher.parameters == sum(p.numel() for p in pipe.transformer.parameters())
    block = pipe.transformer.transformer_blocks[3]
    assert teacher.stacks[0].block_parameters(3) == sum(p.numel() for p in block.parameters())
    assert (teacher.family, teacher.stacks[0].depth, teacher.dtype) == ("qwenimage", 6, "float32")
    assert models.describe_module(pipe.transformer).stacks == teacher.stacks


def test_a_pipeline_its_transformer_and_its_config_are_one_teacher(
    folder: Path, teacher: Teacher
) -> None:
    inner = models.describe(folder / "transformer", "tiny")
    config = models.describe(folder / "transformer" / "config.json", "tiny")
    assert inner == teacher
    assert (config.stacks, config.outside, config.fingerprint) == (
        teacher.stacks,
        teacher.outside,
        "",
    )


def test_qwen_image_from_its_config_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"_class_name": "QwenImageTransformer2DModel", "num_layers": 30}))
    # knowledge/diffusers.md, section B
    assert models.describe(path, "half").parameters == 10_235_462_208


def broken(folder: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy of the transformer folder with another config."""
    copy = tmp_path / "copy"
    shutil.copytree(folder / "transformer", copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    return copy


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_layers": 7}, {"found": "6 blocks in transformer_blocks", "expected": "7"}),
        ({"num_layers": 5}, {"found": "6 blocks in transformer_blocks", "expected": "5"}),
        ({"joint_attention_dim": 48}, {"found": "txt_norm.weight is [32]", "expected": "[48]"}),
        ({"_class_name": "UNet2DConditionModel"}, {"found": "UNet2DConditionModel"}),
        ({"_class_name": None}, {"found": "_class_name"}),
        ({"num_attention_heads": "many"}, {"found": "QwenImageTransformer2DModel"}),
    ],
)
def test_a_config_that_contradicts_its_weights_is_refused(
    folder: Path, tmp_path: Path, changes: dict, field: dict
) -> None:
    with refused(**field):
        models.describe(broken(folder, tmp_path, **changes), "x")


def test_no_model_here(tmp_path: Path, folder: Path) -> None:
    with refused(found=str(tmp_path / "none")):
        models.describe(tmp_path / "none", "x")
    with refused(found="model_index.json nor config.json"):
        models.describe(tmp_path, "x")
    (tmp_path / "model_index.json").write_text("{}")
    with refused(found="transformer/config.json"):
        models.describe(tmp_path, "x")
    with refused(found="model_index.json"):
        models.load_pipeline(folder / "transformer")
    with refused(found="dtype 'bf17'", expected="bf16"):
        models.load_transformer(folder, dtype="bf17")


def test_load_transformer(folder: Path, pipe: Pipeline) -> None:
    for path in (folder, folder / "transformer"):
        loaded = models.load_transformer(path)
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                loaded.state_dict().values(), pipe.transformer.state_dict().values(), strict=True
            )
        )
    assert next(models.load_transformer(folder, dtype="bf16").parameters()).dtype == torch.bfloat16


def test_a_picture_does_not_depend_on_its_batch(pipe: Pipeline) -> None:
    def pictures(batch: int) -> np.ndarray:
        return np.stack(
            [
                np.asarray(image, int)
                for images in models.generate(
                    pipe, PROMPTS, seeds=[5, 6, 7], steps=3, guidance=3, size=SIZE, batch=batch
                )
                for image in images
            ]
        )

    assert pictures(1).shape == (3, SIZE, SIZE, 3)
    assert abs(pictures(1) - pictures(3)).max() <= 1  # rounding to 8 bits
    assert abs(pictures(3)[0] - pictures(3)[1]).max() > 8


def test_guidance_of_one_samples_without_a_negative_branch(pipe: Pipeline) -> None:
    def branches(guidance: float) -> list[str]:
        return [
            call.branch
            for call in models.trajectories(
                pipe, PROMPTS, seeds=[1, 2, 3], steps=2, guidance=guidance, size=SIZE
            )
        ]

    assert branches(1.0) == ["cond"] * 2
    assert branches(3.0) == ["cond", "uncond"] * 2


def test_trajectories_are_what_the_sampler_saw(pipe: Pipeline, calls: list[Call]) -> None:
    assert [(c.group, c.branch, c.samples) for c in calls] == [
        (g, b, n) for g, n in ((0, 2), (1, 1)) for _ in range(2) for b in ("cond", "uncond")
    ]
    # shift_terminal .02
    assert calls[0].timestep == 1000 and calls[2].timestep == pytest.approx(20, abs=1e-3)
    for call in calls:
        assert call.kwargs["timestep"] == pytest.approx(call.timestep / 1000)
        assert not call.kwargs["hidden_states"].requires_grad
    noise = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(calls[0].kwargs["hidden_states"][:1], pipe._pack_latents(noise, 1, 4, 4, 4))
    assert not pipe.transformer._forward_pre_hooks and "step" not in vars(pipe.scheduler)


def test_chosen_steps() -> None:
    assert models.chosen_steps(20, 4) == [0, 6, 13, 19]
    assert models.chosen_steps(3, None) == models.chosen_steps(3, 8) == [0, 1, 2]
    assert models.chosen_steps(5, 1) == [2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 30},
        {"size": 0},
        {"steps": 0},
        {"seeds": [1]},
        {"prompts": [], "seeds": []},
        {"timesteps": 0},
    ],
)
def test_bad_sampling_requests(pipe: Pipeline, wrong: dict) -> None:
    given = {
        "prompts": PROMPTS,
        "seeds": [1, 2, 3],
        "steps": 2,
        "guidance": 1.0,
        "size": SIZE,
        **wrong,
    }
    with pytest.raises(BadInput):
        list(models.trajectories(pipe, **given))
