"""How a model is sampled by default: from its pipeline's signature, its configs and its name."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from tests.tiny_pipelines import tiny_pipeline
from workbench.families import FAMILIES
from workbench.models.sampling_defaults import default_sampling
from workbench.records import BadInput
from workbench.records.picture_size import parse_size, sides, size_of


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_steps_and_guidance_are_those_of_the_pipelines_own_call(name: str) -> None:
    family = FAMILIES[name]
    found = default_sampling(family, {}, "any")
    call = inspect.signature(getattr(diffusers, family.pipeline).__call__).parameters
    assert found.steps == call["num_inference_steps"].default
    scale = family.guidance or "guidance_scale"
    assert scale not in call or found.guidance == call[scale].default
    assert family.pipeline in found.in_words


# published checkpoints: what their model cards sample them with
KNOWN: list[tuple[str, str, dict[str, Any], int, float]] = [
    ("flux", "FLUX.1-dev", {"guidance_embeds": True}, 28, 3.5),
    ("flux", "FLUX.1-schnell", {"guidance_embeds": False}, 4, 0.0),
    ("zimage", "Z-Image", {}, 50, 5.0),
    ("zimage", "Z-Image-Turbo", {}, 9, 0.0),
    ("sd3", "stable-diffusion-3.5-large", {"sample_size": 128}, 28, 7.0),
    ("sd3", "stable-diffusion-3.5-large-turbo", {"sample_size": 128}, 4, 0.0),
    ("hunyuanimage", "HunyuanImage-2.1-Distilled", {"use_meanflow": True}, 8, 3.25),
    ("qwenimage", "Qwen-Image-Lightning", {}, 8, 1.0),
]


@pytest.mark.parametrize(("family", "name", "config", "steps", "guidance"), KNOWN)
def test_a_few_step_model_is_not_sampled_as_its_base(
    family: str, name: str, config: dict[str, Any], steps: int, guidance: float
) -> None:
    found = default_sampling(FAMILIES[family], config, name)
    assert (found.steps, found.guidance) == (steps, guidance)


SIZES = [
    ("wan", {}, "832x480"),
    ("auraflow", {}, 1024),
    ("hunyuanimage", {}, 2048),
    ("pixart", {"sample_size": 64, "patch_size": 2}, 512),
    ("dit", {"sample_size": 32, "patch_size": 2}, 256),
    ("sd3", {"sample_size": 128, "patch_size": 2}, 1024),
    ("sana", {"sample_size": 32, "patch_size": 1}, 1024),
]


@pytest.mark.parametrize(("family", "config", "size"), SIZES)
def test_a_size_is_the_pipelines_or_follows_from_the_config(
    family: str, config: dict[str, Any], size: int | str
) -> None:
    assert default_sampling(FAMILIES[family], config, "any").size == size


def test_the_pipeline_of_the_folder_counts(tmp_path: Path) -> None:
    """A distilled FLUX.2 klein has another pipeline class, and says so in its index."""
    folder = tiny_pipeline("flux2", tmp_path / "klein")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert default_sampling(FAMILIES["flux2"], config, "klein", folder).steps == 50
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "Flux2KleinPipeline", "is_distilled": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    found = default_sampling(FAMILIES["flux2"], config, "klein", folder)
    assert (found.steps, found.guidance) == (4, 1.0)
    assert "is_distilled" in found.in_words


def test_what_is_asked_for_wins_and_is_said() -> None:
    usual = default_sampling(FAMILIES["pixart"], {}, "any")
    asked = usual.changed(steps=7, size="64x32")
    assert (asked.steps, asked.guidance, asked.size) == (7, usual.guidance, "64x32")
    assert asked.in_words.startswith("7 steps, guidance 4.5, 64x32 pixels (steps, size as asked")
    assert usual.changed() == usual


def test_sizes_are_read_as_people_write_them() -> None:
    assert parse_size("1024") == parse_size(1024) == parse_size("1024x1024") == 1024
    assert parse_size("1344X768") == parse_size("1344 x 768") == "1344x768"
    assert sides("1344x768") == (768, 1344) and sides(512) == (512, 512)
    assert size_of(*sides("1344x768")) == "1344x768" and size_of(512, 512) == 512
    for wrong in ("", "x", "12x", "1024x768x3", "-8", 0, True, 4, "8x99999999", 1.5):
        with pytest.raises((ValueError, BadInput)):
            parse_size(wrong)
