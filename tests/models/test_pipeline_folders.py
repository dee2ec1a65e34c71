"""Pipelines that cannot be sampled from prompts are refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import refused
from workbench import models
from workbench.records import BadInput

FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no text encoder": ({"text_encoder": [None, None]}, "without a text encoder", "--inputs"),
    "unknown class": ({"_class_name": "QwenImagPipeline"}, "QwenImagPipeline", "_class_name"),
    "no class": ({"_class_name": None}, "no _class_name", "again"),
    "editing": ({"_class_name": "QwenImageEditPipeline"}, "QwenImageEditPipeline", "--inputs"),
    "filling": ({"_class_name": "FluxFillPipeline"}, "from a picture", "--inputs"),
    "lost component": ({"safety": ["transformers", "CLIPModel"]}, "component safety", "copy"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_refused_by_its_index(folder: Path, tmp_path: Path, fault: str) -> None:
    changes, found, do = FAULTS[fault]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, **changes}))
    with refused(found=found, do=do):
        models.load_pipeline(copy)
    # what reads the transformer alone does without
    assert models.describe(copy, "tiny") == models.describe(folder, "tiny")


@pytest.mark.parametrize("text", ["[]", "{", "", "version https://git-lfs.github.com/spec/v1"])
def test_an_index_that_is_none(folder: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "model_index.json").write_text(text)
    with refused(found="model_index.json"):
        models.load_pipeline(copy)


def test_a_second_transformer_is_left_and_named(folder: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.copytree(copy / "transformer", copy / "transformer_2")
    assert models.describe(copy, "tiny") == models.describe(folder, "tiny")
    assert "transformer_2" in capsys.readouterr().err


def test_the_config_of_another_class_names_both(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder / "transformer", copy)
    (copy / "config.json").write_text(json.dumps({"_class_name": "FluxTransformer2DModel"}))
    with refused(found="FluxTransformer2DModel", do="config.json of these weights"):
        models.describe(copy, "x")
    with pytest.raises(BadInput):
        models.describe(folder / "vae", "x")
