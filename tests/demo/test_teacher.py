"""The bundled weights: small enough, loadable by diffusers alone, and able to draw what they are
asked.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from workbench.demo import DEFAULT_CFG, NEGATIVE_PROMPT, SIZE, teacher_folder, weights_folder
from workbench.demo.scenes import prompt_set
from workbench.demo.training.bundle import MOST_BYTES, MOST_FILE
from workbench.demo.training.evaluate import evaluate, load


def test_the_face_imports_no_torch():
    code = "import sys, workbench.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_bundle_is_small():
    sizes = [p.stat().st_size for p in weights_folder().rglob("*") if p.is_file()]
    assert max(sizes) <= MOST_FILE
    assert sum(sizes) <= MOST_BYTES


def test_the_bundle_tells_no_path():
    assert not [p for p in weights_folder().rglob("*.json") if "_name_or_path" in p.read_text()]


def test_unknown_teachers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="demo and demo-12"):
        teacher_folder("demo-13", tmp_path)


def test_the_parent_is_a_folder_of_links(tmp_path):
    folder = teacher_folder("demo-12", tmp_path)
    again = teacher_folder("demo-12", tmp_path)
    assert folder == again
    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline).__name__ == "QwenImagePipeline"
    assert len(pipeline.transformer.transformer_blocks) == 12


def test_the_parent_follows_new_weights(tmp_path):
    folder = teacher_folder("demo-12", tmp_path)
    config = folder / "transformer" / "config.json"
    data = config.read_text()
    config.unlink()
    config.write_text(json.dumps({"num_layers": 3}))
    assert (teacher_folder("demo-12", tmp_path) / "transformer" / "config.json").read_text() == data


def test_the_teacher_draws_what_it_is_asked():
    pipeline = load(teacher_folder("demo", weights_folder()), dtype=torch.float32)
    assert len(pipeline.transformer.transformer_blocks) == 24
    report, images, _ = evaluate(pipeline, prompt_set(1, "validation"))
    assert images[0].shape == (SIZE, SIZE, 3)
    assert report.overall >= 0.6


def test_pictures_depend_on_the_seed_and_not_on_the_batch():
    pipeline = load(weights_folder(), dtype=torch.float32)

    def draw(prompts, seeds):
        noise = [torch.Generator().manual_seed(s) for s in seeds]
        return pipeline(
            prompt=prompts,
            negative_prompt=[NEGATIVE_PROMPT] * len(prompts),
            true_cfg_scale=DEFAULT_CFG,
            height=SIZE,
            width=SIZE,
            num_inference_steps=2,
            generator=noise,
            output_type="np",
        ).images

    two = draw(["a red circle on sky", "a red circle on sky"], [1, 2])
    one = draw(["a red circle on sky"], [2])
    assert np.abs(two[1] - one[0]).max() < 1e-3
    assert np.abs(two[0] - two[1]).max() > 0.05
