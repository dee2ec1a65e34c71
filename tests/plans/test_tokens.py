"""How many tokens a sample has, and that every front end predicts the same speed from it."""

from __future__ import annotations

import inspect
from pathlib import Path

import diffusers
import pytest

from workbench import plans, rules
from workbench.families import FAMILIES
from workbench.records import Teacher
from workbench.rules import Budget

DEMO = Path(__file__).parents[2] / "workbench" / "demo"


def of_family(name: str, **more) -> Teacher:
    family = FAMILIES[name]
    return Teacher(
        name="t", family=name, class_name=family.transformer, outside=0, stacks=[], **more
    )


@pytest.mark.parametrize(
    "family, size, image",
    [
        ("qwenimage", 1024, 4096),  # 8 x VAE, 2 x 2 patches
        ("flux", 1024, 4096),
        ("sana", 1024, 1024),  # 32 x VAE, no patches (arXiv 2410.10629, section 2.1)
        ("sana", 4096, 16384),
        ("hunyuanimage", 2048, 4096),  # 32 x VAE
        ("qwenimage", None, 4096),
    ],
)
def test_image_tokens_of_a_square_picture(family, size, image):
    assert plans.tokens_of(of_family(family), size) == plans.Tokens(image, 256)


def test_a_video_has_the_frames_that_its_pipeline_samples():
    pipeline = inspect.signature(diffusers.WanPipeline.__call__).parameters
    pictures = pipeline["num_frames"].default
    latents = 1 + (pictures - 1) // 4  # the first alone, then four to a latent frame
    assert plans.tokens_of(of_family("wan"), "832x480") == plans.Tokens(30 * 52, 256, latents)


def test_a_teacher_says_how_it_is_sampled():
    teacher = of_family("qwenimage", size=128, text_tokens=24)
    assert plans.tokens_of(teacher) == plans.Tokens(64, 24)
    assert plans.tokens_of(teacher, 256) == plans.Tokens(256, 24)


@pytest.mark.parametrize("name", ["teacher", "teacher-12"])
def test_the_bundled_descriptions_have_the_bundled_sampling(name):
    from workbench import demo

    teacher = Teacher.load(DEMO / f"{name}.json")
    assert (teacher.size, teacher.text_tokens) == (demo.SIZE, demo.TEXT_TOKENS)


def test_app_notebook_rules_and_command_line_predict_the_same_speed(tmp_path):
    from workbench import lab
    from workbench.tasks import run
    from workbench.ui import catalogue, view
    from workbench.workspace.store import Store

    spec = {"teacher": "demo", "budget": "latency=0.5", "out": str(tmp_path / "plan.yaml")}
    result = run("plan", spec, tmp_path)
    speed = f"{1 / result['predicted_latency']:.2f}×"
    teacher = catalogue.teacher(Store(tmp_path), "demo")  # as app and notebook read it
    plan = rules.propose("uniform", teacher, budget=Budget.parse("latency=0.5"))
    assert plan.depth() == result["depth"]
    assert speed in view.budget(plan, teacher, None)
    assert f"predicted speed {speed}" in lab.budget_words(plan, teacher, None)
    info = run("plan-info", {"plan": str(tmp_path / "plan.yaml")}, tmp_path)
    assert info["predicted_latency"] == result["predicted_latency"]
