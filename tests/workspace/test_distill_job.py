"""A real distillation as a job: killed, resumed, and bit for bit what it would have been."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import tiny_qwen_pipeline
from workbench import tasks
from workbench.workspace import job_control, jobs
from workbench.workspace.store import Store

from .conftest import until, wait_for
from .test_queue import pid_of

SPEC = """
name: tiny
stages:
  - {name: warm, gradient: span, inputs: teacher, losses: {feature: {}}, train: merged, steps: 15, batch: 2, lr: 1.0e-3}
  - {name: full, gradient: full, inputs: student, losses: {output: {}, feature: {weight: 0.1}}, train: all, steps: 80, batch: 2,
     optimizer: muon, lr: 1.0e-3, schedule: linear, ema: 0.9}
"""


@pytest.fixture
def spec(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    teacher = tiny_qwen_pipeline(tmp_path / "teacher", depth=4)
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    tasks.run(
        "plan",
        {"teacher": str(teacher), "keep": 2, "init": "mean", "out": str(tmp_path / "plan.yaml")},
        store.workspace,
    )
    tasks.run(
        "build",
        {"plan": str(tmp_path / "plan.yaml"), "out": str(tmp_path / "built")},
        store.workspace,
    )
    return {
        "student": str(tmp_path / "built"),
        "spec": str(tmp_path / "spec.yaml"),
        "data": str(tmp_path / "prompts.txt"),
        "size": 32,
        "sampling_steps": 2,
        "watch": 40,
        "checkpoint_every": 0.05,
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    [file] = (folder / "transformer").glob("*.safetensors")
    return load_file(file)


def test_kill_9_and_resume_end_bit_for_bit_as_without(
    store: Store, spec: dict[str, Any], tmp_path: Path
):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = tasks.run("distill", {**spec, "out": str(tmp_path / "whole")}, store.workspace)
    finally:
        torch.set_num_threads(before)
    assert set(whole) >= {
        "student",
        "steps",
        "seconds",
        "samples_per_second",
        "first_loss",
        "last_loss",
    }
    job = jobs.submit(store, "distill", {**spec, "out": str(tmp_path / "killed")})
    until(lambda: len(jobs.metrics(store, job.id)[0]) > 20, 120)
    job_control.sample_now(store, job.id)
    until(lambda: any((job.folder / "samples").glob("step-*.png")), 120)
    os.kill(pid_of(store, job.id), signal.SIGKILL)
    assert wait_for(store, job.id, "failed").result is None
    reached = jobs.metrics(store, job.id)[0][-1]["step"]
    assert 20 < reached < 95
    [asked] = {path.name.split("-")[1] for path in (job.folder / "samples").glob("step-*.png")}
    assert int(asked) % 40 != 0, "that would be a look by plan"
    jobs.resume(store, job.id)
    done = wait_for(store, job.id, "done", seconds=120)
    assert [row["step"] for row in jobs.metrics(store, job.id)[0]] == list(range(1, 96)), (
        "no hole and no double"
    )
    assert done.result["steps"] == 95
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {s.name for s in store.students()} == {"built", "whole", "killed"}
    more = job_control.continue_from(store, job.id, {"steps": 4})
    ended = wait_for(store, more.id, "done", seconds=120)
    assert ended.result["steps"] == 4
    assert ended.result["student"] == str(tmp_path / "killed-2")
    third = weights(tmp_path / "killed-2")
    assert any(not torch.equal(third[name], second[name]) for name in second), "trained further"
