"""A student that was distilled on guided targets is not guided a second time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from workbench import models
from workbench.records import Card
from workbench.specs import CompareSpec
from workbench.tasks.compare import compare
from workbench.tasks.context import Context
from workbench.tasks.resolve import resolve
from workbench.workspace.store import Store


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return tiny.tiny_qwen_pipeline(tmp_path_factory.mktemp("guided") / "teacher")


def student_of(teacher: Path, folder: Path, spec: dict[str, object] | None, **more: object) -> Path:
    """The teacher's weights as a student whose card has this distillation."""
    shutil.copytree(teacher, folder)
    made = models.describe(teacher, str(teacher))
    Card(
        teacher=str(teacher),
        teacher_fingerprint=made.fingerprint,
        original=str(teacher),
        original_fingerprint=made.fingerprint,
        plan={},
        spec=spec,
        parameters=1,
        teacher_parameters=1,
        original_parameters=1,
        **more,
    ).save(folder / "card.json")
    return folder


GUIDED = {"stages": [{"guidance": None}, {"guidance": 3.0}]}


def test_its_default_is_no_guidance_and_its_students_inherit_it(
    teacher: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "workspace")
    plain = resolve(str(student_of(teacher, tmp_path / "plain", {"stages": [{}]})), store)
    guided = resolve(str(student_of(teacher, tmp_path / "guided", GUIDED)), store)
    heir = student_of(teacher, tmp_path / "heir", None, learned_guidance=True)
    assert plain.sampling.guidance == 4.0
    assert guided.sampling.guidance == resolve(str(heir), store).sampling.guidance == 1.0
    assert "guided targets" in guided.sampling.in_words


def test_a_comparison_samples_each_model_as_it_was_trained(teacher: Path, tmp_path: Path) -> None:
    """The student has the teacher's weights: unguided, its pictures are the teacher's unguided
    ones, and not the teacher's.
    """
    guided = student_of(teacher, tmp_path / "guided", GUIDED)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a red circle"}\n')
    spec = CompareSpec(
        models=[str(teacher), str(guided)],
        suite=str(tmp_path / "prompts.jsonl"),
        sampling_steps=2,
        size="64x32",
        out=str(tmp_path / "out"),
    )
    context = Context(store=Store(tmp_path / "workspace"), device="cpu")
    list(compare(spec, context))
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [model["guidance"] for model in record["models"]] == [4.0, 1.0]
    assert (record["guidance"], record["size"]) == (4.0, "64x32")
    assert "defaults of QwenImagePipeline" in record["sampled_as"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "guided: guidance 1, as it was distilled" in page and "64x32 px" in page
    images = [
        np.asarray(Image.open(tmp_path / "out" / files[0]), int)
        for files in record["images"].values()
    ]
    assert images[0].shape == (32, 64, 3)
    pipe = models.load_pipeline(teacher)
    [unguided] = next(
        models.generate(pipe, ["a red circle"], seeds=[0], steps=2, guidance=1, size="64x32")
    )
    assert abs(images[1] - np.asarray(unguided, int)).max() <= 1
    assert abs(images[1] - images[0]).max() > 4
