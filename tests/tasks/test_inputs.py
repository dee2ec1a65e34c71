"""What is not a model, or not a file, is refused by every verb before it begins."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.refusals import refused
from tests.tiny import tiny_qwen_pipeline
from workbench import models, tasks
from workbench.models.headers import STEM


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_pipeline(tmp_path_factory.mktemp("teacher") / "tiny", depth=3)


@pytest.fixture
def quantised(teacher: Path, tmp_path: Path) -> Path:
    """The teacher with the scales of fp8 weights beside one of them."""
    folder = Path(shutil.copytree(teacher, tmp_path / "quantised"))
    file = folder / "transformer" / f"{STEM}.safetensors"
    tensors = load_file(file)
    name = "transformer_blocks.0.attn.to_q.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file({**tensors, f"{name}_scale": torch.ones(1)}, file)
    return folder


def plan_file(path: Path, teacher: Path) -> Path:
    spans = [{"blocks": [0, 1], "init": "mean"}, {"blocks": 2}]
    plan = {"teacher": str(teacher), "family": "qwenimage", "stacks": {"transformer_blocks": spans}}
    path.write_text(json.dumps(plan))
    return path


@pytest.mark.parametrize("verb", ["info", "profile", "plan", "build", "compare"])
def test_every_verb_names_the_cause(
    teacher: Path, quantised: Path, tmp_path: Path, verb: str
) -> None:
    plan = plan_file(tmp_path / "plan.yaml", quantised)
    specs = {
        "info": {"teacher": str(quantised)},
        "profile": {"teacher": str(quantised)},
        "plan": {"teacher": str(quantised), "rule": "uniform", "keep": 2},
        "build": {"plan": str(plan), "out": str(tmp_path / "student")},
        "compare": {"models": [str(teacher), str(quantised)], "out": str(tmp_path / "comparison")},
    }
    with refused(found="weight_scale", do="unquantised"):
        tasks.run(verb, specs[verb], tmp_path / "workspace", device="cpu")
    assert not (tmp_path / "student").exists()


def test_an_output_that_is_not_a_file_is_refused(teacher: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for out in ("/dev/full", str(pipe)):
        spec = {"teacher": str(teacher), "rule": "uniform", "keep": 2, "out": out}
        with refused(found=f"-o {out}"):
            tasks.run("plan", spec, tmp_path / "workspace", device="cpu")


def test_a_student_of_a_variant_loads_in_diffusers(teacher: Path, tmp_path: Path) -> None:
    """Also where a tensor that nothing reads is in the teacher."""
    folder = Path(shutil.copytree(teacher, tmp_path / "tiny"))
    file = folder / "transformer" / f"{STEM}.safetensors"
    save_file({**load_file(file), "extra": torch.ones(2)}, file)
    file.rename(file.with_name(f"{STEM}.fp16.safetensors"))
    out = tmp_path / "student"
    spec = {"plan": str(plan_file(tmp_path / "plan.yaml", folder)), "out": str(out)}
    tasks.run("build", spec, tmp_path / "workspace", device="cpu")
    loaded = diffusers.QwenImagePipeline.from_pretrained(out).transformer.state_dict()
    ours = models.load_transformer(out).state_dict()
    assert loaded.keys() == ours.keys() and len(loaded) > 1
    assert all(torch.equal(loaded[name], ours[name]) for name in ours)
