"""Kill -9 in the middle of a checkpoint, a student's folder, a cache, a comparison or a result: a
resumed job ends as one that nobody disturbed, and what the killed attempt left is gone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny import tiny_qwen_pipeline
from workbench import tasks
from workbench.workspace import jobs
from workbench.workspace.store import Store

from .conftest import wait_for

STAGES = """
name: tiny
stages:
  - {name: full, gradient: full, inputs: student, losses: {output: {}}, train: all, steps: 12,
     batch: 2, lr: 1.0e-3, ema: 0.9}
"""


@pytest.fixture
def folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a teacher, a plan, prompts and stages."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    teacher = tiny_qwen_pipeline(tmp_path / "teacher", depth=4)
    (tmp_path / "stages.yaml").write_text(STAGES)
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    plan = {"teacher": str(teacher), "keep": 2, "init": "mean", "out": str(tmp_path / "plan.yaml")}
    tasks.run("plan", plan, store.workspace)
    return tmp_path


def run_to_end(store: Store, verb: str, spec: dict[str, Any]) -> jobs.Job:
    return wait_for(store, jobs.submit(store, verb, spec).id, "done", seconds=240)


def kill_when(
    store: Store, verb: str, spec: dict[str, Any], moment: Callable[[jobs.Job], bool]
) -> jobs.Job:
    """Queue a job and kill its process at that moment. Returns the job as it is afterwards."""
    job = jobs.submit(store, verb, spec)
    end = time.monotonic() + 240
    while not moment(job):
        assert time.monotonic() < end, f"{verb}: the moment never came"
        time.sleep(0.001)
    with store.db(write=False) as db:
        pid = db.execute("SELECT pid FROM job WHERE id = ?", (job.id,)).fetchone()["pid"]
    os.kill(pid, signal.SIGKILL)
    return wait_for(store, job.id, "failed", "lost", "done")


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
    """Hidden files and folders that writers make, anywhere below; those of job folders aside."""
    names = [str(path.relative_to(folder)) for path in folder.rglob(".*[0-9]")]
    return [name for name in names if "/jobs/" not in f"/{name}"]


MOMENTS: dict[str, Callable[[Path, jobs.Job], bool]] = {
    "encode": lambda folder, job: any((folder / "workspace" / "cache").glob("*/*")),
    "checkpoint": lambda folder, job: any((folder / "killed.checkpoints").glob(".step-*")),
    "output": lambda folder, job: any(folder.glob(".killed.partial-*")),
    "after the output": lambda folder, job: (folder / "killed").exists(),
    "result": lambda folder, job: (job.folder / "result.json").exists(),
}


@pytest.mark.slow
def test_a_distillation(store: Store, folder: Path):
    run_to_end(store, "build", {"plan": str(folder / "plan.yaml"), "out": str(folder / "built")})
    spec = {
        "student": str(folder / "built"),
        "spec": str(folder / "stages.yaml"),
        "data": str(folder / "prompts.txt"),
        "size": 32,
        "checkpoint_every": 0.01,
    }
    ends = {}
    for moment, is_now in MOMENTS.items():
        killed_spec = {**spec, "out": str(folder / "killed")}
        job = kill_when(store, "distill", killed_spec, partial(is_now, folder))
        if moment == "result":
            assert job.state == "done", "the work's own word comes first"
        if job.state != "done":
            jobs.resume(store, job.id)
            job = wait_for(store, job.id, "done", seconds=240)
        assert job.result["steps"] == 12
        assert drafts(folder) == [], moment
        assert not (folder / "killed.checkpoints").exists()
        ends[moment] = digests(folder / "killed", "*.safetensors")
        shutil.rmtree(folder / "killed")
    run_to_end(store, "distill", {**spec, "out": str(folder / "whole")})
    whole = digests(folder / "whole", "*.safetensors")
    assert ends == dict.fromkeys(MOMENTS, whole)


@pytest.mark.slow
def test_a_build(store: Store, folder: Path):
    spec = {"plan": str(folder / "plan.yaml")}
    whole = run_to_end(store, "build", {**spec, "out": str(folder / "whole")})
    assert whole.state == "done"
    killed_spec = {**spec, "out": str(folder / "killed")}
    job = kill_when(store, "build", killed_spec, lambda job: any(folder.glob(".killed.partial-*")))
    assert not (folder / "killed").exists() or job.state == "done"
    if job.state != "done":
        jobs.resume(store, job.id)
        wait_for(store, job.id, "done", seconds=240)
    assert drafts(folder) == []
    weights = "*.safetensors"
    assert digests(folder / "killed", weights) == digests(folder / "whole", weights)


@pytest.mark.slow
def test_a_comparison(store: Store, folder: Path):
    run_to_end(store, "build", {"plan": str(folder / "plan.yaml"), "out": str(folder / "built")})
    spec = {
        "models": [str(folder / "teacher"), str(folder / "built")],
        "suite": str(folder / "prompts.txt"),
        "steps": 2,
        "size": 32,
        "seeds": 2,
        "scorers": ["similarity"],
    }
    killed_spec = {**spec, "out": str(folder / "killed")}
    job = kill_when(
        store, "compare", killed_spec, lambda job: len(list(folder.glob("*killed*/**/*.png"))) >= 3
    )
    if job.state != "done":
        jobs.resume(store, job.id)
        wait_for(store, job.id, "done", seconds=240)
    run_to_end(store, "compare", {**spec, "out": str(folder / "whole")})
    assert digests(folder / "killed", "*.png") == digests(folder / "whole", "*.png")
    assert drafts(folder) == []
