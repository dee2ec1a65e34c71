"""Everything that can be wrong with a comparison is reported before anything is sampled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import tiny, tiny_pipelines
from workbench import plugins, tasks
from workbench.records import BadInput, Comparison, Progress
from workbench.specs import CompareSpec
from workbench.tasks.compare import request_of
from workbench.tasks.context import Context
from workbench.workspace.store import Store

FAST = {"suite": "general", "steps": 2, "size": tiny.SIZE, "guidance": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_qwen_pipeline(tmp_path_factory.mktemp("models") / "teacher", depth=2)


def refusal(tmp_path: Path, **spec: Any) -> BadInput:
    """The error of a comparison that must sample nothing and write nothing."""

    def unwanted(progress: Progress) -> None:
        pytest.fail(f"work began: {progress.message}")

    with pytest.raises(BadInput) as error:
        tasks.run("compare", {**FAST, **spec}, tmp_path / "workspace", unwanted)
    assert not list(tmp_path.glob("workspace/comparisons/*/*"))
    return error.value


def no_pipeline(folder: Path) -> Path:
    folder.mkdir()
    return folder


def no_weights(folder: Path, teacher: Path) -> Path:
    shutil.copytree(teacher, folder)
    for file in (folder / "transformer").glob("*.safetensors"):
        file.unlink()
    return folder


def no_vae(folder: Path, teacher: Path) -> Path:
    shutil.copytree(teacher, folder)
    shutil.rmtree(folder / "vae")
    return folder


def other_latents(folder: Path, teacher: Path) -> Path:
    shutil.copytree(teacher, folder)
    file = folder / "vae" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "dim_mult": [1, 1]}))
    return folder


def test_a_second_model_that_cannot_be_compared(teacher: Path, tmp_path: Path):
    empty = no_pipeline(tmp_path / "empty")
    error = refusal(tmp_path, models=[str(teacher), str(empty)])
    assert error.found == f"model {empty} has no model_index.json"
    error = refusal(tmp_path, models=[str(teacher), str(no_weights(tmp_path / "bare", teacher))])
    assert "bare" in error.found and "safetensors" in error.found + error.expected
    error = refusal(tmp_path, models=[str(teacher), str(no_vae(tmp_path / "half", teacher))])
    assert error.found == f"{tmp_path / 'half'} lacks its component vae"
    flux = tiny_pipelines.tiny_pipeline("flux", tmp_path / "flux")
    error = refusal(tmp_path, models=[str(teacher), str(flux)])
    assert (error.found, error.expected) == (
        f"model {flux} of family flux",
        f"family qwenimage, as {teacher}",
    )
    wide = other_latents(tmp_path / "wide", teacher)
    error = refusal(tmp_path, models=[str(teacher), str(wide)])
    assert error.found == f"model {wide} with latents 16 channels, 2 VAE levels"


def test_suites_scorers_names_and_outputs(teacher: Path, tmp_path: Path):
    models = [str(teacher), str(teacher)]
    error = refusal(tmp_path, models=models[:1])
    assert error.found == "1 model"
    error = refusal(tmp_path, models=models, suite=str(tmp_path / "none.jsonl"))
    assert "none.jsonl" in error.found
    error = refusal(tmp_path, models=models, scorers=["taste"])
    assert error.found == "scorer 'taste'"
    error = refusal(tmp_path, models=models, scorers=["scenes"])
    assert "items have no scene" in error.found
    error = refusal(tmp_path, models=models, names=["a", "a"])
    assert error.found == "names a, a for 2 models"
    (tmp_path / "file").write_text("")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("work of years")
    error = refusal(tmp_path, models=models, out=str(tmp_path / "file"))
    assert error.found == f"-o {tmp_path / 'file'} is a file"
    error = refusal(tmp_path, models=models, out=str(tmp_path / "thesis"))
    assert error.found == f"-o {tmp_path / 'thesis'} holds something else"
    with pytest.raises(BadInput) as caught:
        tasks.run("demo", {"out": str(tmp_path / "thesis")}, tmp_path / "workspace")
    assert caught.value.found == f"-o {tmp_path / 'thesis'} holds something else"
    assert not list(tmp_path.glob("workspace/plans/*"))


def names(tmp_path: Path, **spec: Any) -> list[str]:
    request = request_of(CompareSpec.parse({**FAST, **spec}), Context(Store(tmp_path)))
    return [entry.name for entry in request.entries]


def test_models_of_one_name_are_numbered_or_named(teacher: Path, tmp_path: Path):
    other = tmp_path / "elsewhere" / "teacher"
    shutil.copytree(teacher, other)
    models = [str(teacher), str(other)]
    assert names(tmp_path, models=models) == ["teacher-1", "teacher-2"]
    assert names(tmp_path, models=[models[0], f"mine={other}"]) == ["teacher-1", "mine"]
    assert names(tmp_path, models=models, names=["a", "b"]) == ["a", "b"]
    assert names(tmp_path, models=models, names="a,b") == ["a", "b"]
    assert names(tmp_path, models=models, names=["teacher-1"]) == ["teacher-1", "teacher-2"]
    spec = CompareSpec.parse({"models": ["demo", "b=x/y"]})
    assert CompareSpec.parse(spec.to_data()) == spec


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    spec = CompareSpec.parse({"models": ["lr=1", "runs/lr=2"]})
    assert (spec.models, spec.names) == (["lr=1", "runs/lr=2"], None)


PLUGIN = """
import numpy as np
import workbench
from workbench.comparison.scorers.base import Scorer

class Darkness(Scorer):
    name, unit, direction = "mine", "mean grey level", "lower = better"
    prepared = ""

    def prepare(self, device):
        Darkness.prepared = device

    def score(self, images, items, reference):
        assert Darkness.prepared == "cpu"
        return [float(np.asarray(image).mean()) for image in images]

workbench.register("scorer", "mine", Darkness())
"""


def test_a_scorer_of_a_plugin_file_scores_a_comparison(teacher: Path, tmp_path: Path):
    (tmp_path / "scorers.py").write_text(PLUGIN)
    suite = tmp_path / "two.txt"
    suite.write_text("a red circle\na blue square\n")
    spec = {
        **FAST,
        "models": [str(teacher), str(teacher)],
        "suite": str(suite),
        "scorers": ["mine", "ssim"],
        "plugins": [str(tmp_path / "scorers.py")],
        "out": str(tmp_path / "out"),
    }
    try:
        result = tasks.run("compare", spec, tmp_path / "workspace")
    finally:
        plugins.unregister("scorer", "mine")
    comparison = Comparison.load(result["comparison"])
    score = comparison.models[0].scores["mine"]
    assert score.unit == "mean grey level" and not score.higher_is_better
    assert score.per_image is not None and len(score.per_image) == 2
    assert comparison.models[1].retention["mine"] is None  # lower is better: no share of quality
    assert comparison.models[1].difference["mine"].mean == 0
    assert "mean grey level; lower = better" in Path(result["page"]).read_text()
