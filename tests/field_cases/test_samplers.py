"""Samplers and what they are given: negative prompts, and pipelines that cannot be called or loaded."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch
from PIL import Image

from tests import more_pipelines
from tests.cli.conftest import Run, only_json
from tests.tiny import SIZE, tiny_qwen_pipeline
from workbench import models
from workbench.families import FAMILIES
from workbench.models.prompt_encodings import Prompts
from workbench.models.sampling_defaults import check_negative, default_sampling
from workbench.records import BadInput, Comparison, SensitivityMap
from workbench.training.encode import pipeline_calls
from workbench.training.model_inputs import check_trainable

NEGATIVE = "green on the background"


def test_profile_and_compare_sample_with_it_and_keep_it(
    command: Run, tiny: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    short = ["--steps", "2", "--size", SIZE, "--guidance", "4", "--json"]
    negative = ["--negative-prompt", NEGATIVE]
    file, out = tmp_path / "map.json", tmp_path / "comparison"
    about = ["profile", tiny, "--prompts", prompts, "--edits", "drop", "--timesteps", "1"]
    only_json(command(*about, "-o", file, *short, *negative))
    assert SensitivityMap.load(file).measured["negative"] == NEGATIVE
    about = ["compare", f"one={tiny}", f"two={tiny}", "--suite", prompts, "-o", out]
    only_json(command(*about, *short, *negative))
    assert Comparison.load(out / "comparison.json").negative == NEGATIVE
    pipe = models.load_pipeline(tiny)
    for text in (NEGATIVE, " "):
        request = Prompts(["a red circle"], [0], 2, 4.0, SIZE, 1, text)
        [picture] = next(models.generate(pipe, **vars(request)))
        with Image.open(next(out.rglob("0000.png"))) as kept:
            same = picture.tobytes() == kept.convert("RGB").tobytes()
        assert same == (text == NEGATIVE)


def test_training_takes_it_for_the_unconditional_branch(tmp_path: Path) -> None:
    """As the sampler's own unconditional call has it."""
    pipe = models.load_pipeline(tiny_qwen_pipeline(tmp_path, depth=1))
    request = Prompts(["a red circle"], [0], 2, 4.0, SIZE, 1, NEGATIVE)
    calls = list(models.trajectories(pipe, **vars(request), timesteps=1))
    found = pipeline_calls.empty_text(pipe, (SIZE, SIZE), NEGATIVE)
    expected = pipeline_calls.texts_of(pipe, calls[1].kwargs, 1)[0]
    usual = pipeline_calls.empty_text(pipe, (SIZE, SIZE))
    key = "encoder_hidden_states"
    assert torch.equal(found[key], expected[key])
    assert found[key].shape != usual[key].shape or not torch.equal(found[key], usual[key])


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_refused_where_no_branch_takes_it(name: str) -> None:
    family = FAMILIES[name]
    with pytest.raises(BadInput):
        check_negative(family, 1.0, None)
    takes = family.guidance is not None and family.negative and not family.is_class_conditional
    if takes:
        check_negative(family, 4.0, None)
    else:
        with pytest.raises(BadInput, match="negative prompt for a"):
            check_negative(family, 4.0, None)


def test_it_is_printed_and_kept_with_the_defaults() -> None:
    usual = default_sampling(FAMILIES["qwenimage"], {}, "x")
    changed = usual.changed(negative=NEGATIVE)
    assert NEGATIVE in changed.in_words and "negative prompt as asked" in changed.sampled_as
    assert "negative" not in usual.in_words


ODD = [("num_attention_heads", 0), ("in_channels", 0), ("num_layers", -1), ("num_layers", True)]


@pytest.mark.parametrize(("key", "value"), ODD)
def test_a_config_of_no_heads_or_blocks_is_one_line(
    command: Run, pipeline: Path, tmp_path: Path, key: str, value: object
) -> None:
    """Of a config alone, which has no weights that would not fit."""
    config = json.loads((pipeline / "transformer" / "config.json").read_text())
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**config, key: value}))
    done = command("info", file)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_sana_sprint_is_one_line_where_sanas_sampler_would_call_it_wrongly() -> None:
    pipe = diffusers.SanaSprintPipeline(**more_pipelines.sana().components)
    with pytest.raises(BadInput, match="takes no negative_prompt"):
        next(models.generate(pipe, ["one"], seeds=[0], steps=2, guidance=4.5, size=SIZE))
    check_trainable("sana", {"guidance_embeds": False})
    with pytest.raises(BadInput, match="SANA Sprint"):
        check_trainable("sana", {"guidance_embeds": True})


# --- pipelines whose components are not what they should be -------------------------------------------


def edited(**changes: object) -> object:
    def change(folder: Path) -> None:
        file = folder / "model_index.json"
        index = {**json.loads(file.read_text()), **changes}
        file.unlink()
        file.write_text(json.dumps(index))

    return change


def without_weights(folder: Path) -> None:
    for file in (folder / "text_encoder").glob("*.safetensors*"):
        file.unlink()


def truncated(folder: Path) -> None:
    [file] = (folder / "vae").glob("*.safetensors")
    content = file.read_bytes()[:1000]
    file.unlink()
    file.write_bytes(content)


COMPONENTS = {
    "text encoder without weights": (without_weights, "text_encoder has no weights"),
    "a truncated VAE": (truncated, "is truncated"),
    "a scheduler of a newer diffusers": (
        edited(scheduler=["diffusers", "NewScheduler"]),
        "NewScheduler, which diffusers",
    ),
    "another pipeline's class": (
        edited(_class_name="StableDiffusionPipeline"),
        "lacks the components unet",
    ),
}


@pytest.mark.parametrize("has", COMPONENTS)
def test_a_component_that_cannot_be_loaded_is_one_line(
    command: Run, pipeline: Path, has: str
) -> None:
    change, found = COMPONENTS[has]
    change(pipeline)  # type: ignore[operator]
    done = command("profile", pipeline, "--steps", "2")
    assert done.returncode == 2 and found in done.stderr
    assert only_json(command("info", pipeline, "--json"))["family"] == "qwenimage"
