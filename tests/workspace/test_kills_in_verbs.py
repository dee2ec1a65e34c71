"""Kill -9 in the middle of a cache, a checkpoint, a student's folder, a comparison, a result: the
resumed job ends as one that nobody disturbed, and what the killed attempt left is gone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.tiny import tiny_qwen_pipeline
from workbench import tasks
from workbench.workspace import jobs
from workbench.workspace.store import Store

from .kill_points import attempt

STAGES = """
name: tiny
stages:
  - {name: full, gradient: full, inputs: student, losses: {output: {}}, train: all, steps: 6,
     batch: 2, lr: 1.0e-3, ema: 0.9}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a teacher, a plan, a built student, prompts and stages."""
    folder = tmp_path_factory.mktemp("kills")
    teacher = tiny_qwen_pipeline(folder / "teacher", depth=4)
    (folder / "stages.yaml").write_text(STAGES)
    (folder / "prompts.txt").write_text("a red circle\na blue square\n")
    rows = [json.dumps({"prompt": prompt}) for prompt in ("a red circle", "a blue square")]
    (folder / "suite.jsonl").write_text("\n".join(rows) + "\n")
    plan = {"teacher": str(teacher), "keep": 2, "init": "mean", "out": str(folder / "plan.yaml")}
    tasks.run("plan", plan, folder / "workspace")
    tasks.run("build", build_spec(folder, "built"), folder / "workspace")
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WORKBENCH_DEVICE", "cpu")
    torch.set_num_threads(1)


def build_spec(folder: Path, out: str) -> dict[str, Any]:
    return {"plan": str(folder / "plan.yaml"), "out": str(folder / out)}


def distill_spec(folder: Path, out: str) -> dict[str, Any]:
    return {
        "student": str(folder / "built"),
        "spec": str(folder / "stages.yaml"),
        "data": str(folder / "prompts.txt"),
        "out": str(folder / out),
        "size": 32,
        "sampling_steps": 2,
        "checkpoint_every": 0.001,
        "watch": 0,
    }


def compare_spec(folder: Path, out: str) -> dict[str, Any]:
    return {
        "models": [str(folder / "teacher"), str(folder / "built")],
        "suite": str(folder / "suite.jsonl"),
        "out": str(folder / out),
        "sampling_steps": 2,
        "size": 32,
    }


SPECS = {"build": build_spec, "distill": distill_spec, "compare": compare_spec}


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """File -> SHA-256; of pictures, of their pixels."""
    found = {}
    for file in sorted(folder.rglob(pattern)):
        data = file.read_bytes()
        if file.suffix == ".png":
            with Image.open(file) as image:
                data = image.tobytes()
        found[str(file.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    assert found
    return found


def drafts(folder: Path) -> list[str]:
    """Hidden files and folders that writers make, those of job folders aside."""
    names = [str(path.relative_to(folder)) for path in folder.rglob(".*[0-9]")]
    return [name for name in names if not name.startswith("workspace/jobs/")]


def killed_and_resumed(folder: Path, verb: str, moment: tuple[str, str]) -> jobs.Job:
    """A job that is killed at a moment, then resumed to its end."""
    store = Store(folder / "workspace")
    job = jobs.submit(store, verb, SPECS[verb](folder, "killed"), start=False)
    assert attempt(job.folder, 1, moment) == -9, jobs.log_tail(store, job.id)
    dead = jobs.show(store, job.id)
    if moment == ("after", "*/result.json"):
        assert dead.state == "done", "the work's own word comes first"
        return dead
    assert dead.state == "lost"
    jobs.resume(store, job.id, start=False)
    assert attempt(job.folder, 2) == 0, jobs.log_tail(store, job.id)
    return jobs.show(store, job.id)


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, dict[str, str]]:
    """What verbs write that nobody disturbs, each in a process of its own."""
    store = Store(folder / "workspace")
    ends = {}
    for verb, pattern in (("distill", "*.safetensors"), ("compare", "*.png")):
        job = jobs.submit(store, verb, SPECS[verb](folder, f"whole-{verb}"), start=False)
        assert attempt(job.folder, 1) == 0, jobs.log_tail(store, job.id)
        ends[verb] = digests(folder / f"whole-{verb}", pattern)
    ends["build"] = digests(folder / "built", "*.safetensors")
    return ends


@pytest.mark.parametrize(
    ("verb", "when", "path"),
    [
        ("distill", "before", "*/workspace/cache/*"),
        ("distill", "before", "*/killed.checkpoints/step-00000003"),
        ("distill", "before", "*/killed"),
        ("distill", "after", "*/killed"),
        ("distill", "after", "*/.killed.checkpoints.*"),
        ("distill", "after", "*/result.json"),
        ("build", "before", "*/killed"),
        ("build", "after", "*/killed"),
        ("compare", "after", "*/killed*.png"),
    ],
)
def test_a_killed_job_ends_as_one_that_nobody_disturbed(
    folder: Path, whole: dict[str, dict[str, str]], verb: str, when: str, path: str
):
    if "cache" in path:
        shutil.rmtree(folder / "workspace" / "cache")
    try:
        job = killed_and_resumed(folder, verb, (when, path))
        assert job.state == "done", job.error
        pattern = "*.png" if verb == "compare" else "*.safetensors"
        assert digests(folder / "killed", pattern) == whole[verb]
        assert drafts(folder) == []
        assert not (folder / "killed.checkpoints").exists()
    finally:
        shutil.rmtree(folder / "killed", ignore_errors=True)
        shutil.rmtree(folder / "killed.checkpoints", ignore_errors=True)
