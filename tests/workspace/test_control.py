"""What people ask of jobs, also of those that another process started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import refused
from workbench.workspace import job_control, job_listing, jobs
from workbench.workspace.store import Store

from .conftest import until, wait_for
from .test_queue import pid_of, running


def command(store: Store, *arguments: str) -> dict[str, Any]:
    """`workbench jobs ..` in another process, which has loaded no plugin."""
    line = [sys.executable, "-m", "workbench", "jobs", *arguments, "--json"]
    workspace = ["--workspace", str(store.workspace)]
    done = subprocess.run([*line, *workspace], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_save_now_is_where_a_killed_job_goes_on(store: Store):
    job = running(store, steps=20000, every=100000)
    command(store, "save", job.id)
    checkpoint = job.folder / "checkpoints" / "step"
    until(checkpoint.exists)
    os.kill(pid_of(store, job.id), signal.SIGKILL)
    wait_for(store, job.id, "failed", "lost")
    saved = int(checkpoint.read_text())
    jobs.resume(store, job.id)
    second = job.folder / "metrics-2.jsonl"
    until(lambda: second.exists() and "\n" in second.read_text())
    assert json.loads(second.read_text().partition("\n")[0])["step"] == saved + 1


def test_sample_now_is_heard_once(store: Store):
    job = running(store, steps=20000)
    command(store, "sample", job.id)
    until(lambda: any((job.folder / "samples").iterdir()))
    at = jobs.show(store, job.id).step
    until(lambda: jobs.show(store, job.id).step > at + 20)
    assert len(list((job.folder / "samples").iterdir())) == 1


def test_a_request_is_refused_where_no_process_would_see_it(store: Store):
    queued = jobs.submit(store, "count", {"steps": 1}, start=False)
    with refused(found="queued", expected="a running job"):
        job_control.save_now(store, queued.id)
    other = jobs.submit(store, "bad", {}, start=False)
    with refused(found="a bad", expected="count"):
        job_control.sample_now(store, other.id)


def test_duplicate_with_changes(store: Store, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("a\n")
    spec = {"steps": 3, "out": str(tmp_path / "out"), "prompts": str(tmp_path / "prompts.txt")}
    first = jobs.submit(store, "count", spec, title="mine")
    wait_for(store, first.id, "done")
    (tmp_path / "prompts.txt").unlink()
    answer = command(store, "duplicate", first.id, "--set", "steps=5", "--set", "pause=0.02")
    second = wait_for(store, answer["id"], "done")
    shutil.rmtree(first.folder)
    assert (second.title, second.step) == ("mine", 5)
    assert second.spec["pause"] == 0.02
    assert second.spec["out"] == str(tmp_path / "out-2")
    assert Path(second.spec["prompts"]).is_relative_to(second.folder)
    assert Path(second.spec["prompts"]).read_text() == "a\n"
    third = job_control.duplicate(store, second.id, start=False)
    assert third.spec["out"] == str(tmp_path / "out-3"), "a queued or ended job has the others"


@pytest.mark.parametrize("changes", [{"stepz": 1}, {"steps": "many"}])
def test_a_change_that_does_not_fit_makes_no_job(store: Store, changes: dict[str, Any]):
    job = jobs.submit(store, "count", {"steps": 3}, start=False)
    with refused(found=next(iter(changes))):
        job_control.duplicate(store, job.id, changes)
    assert len(jobs.list_jobs(store)) == 1


def test_continue_is_for_a_distillation_that_is_done(store: Store):
    job = jobs.submit(store, "count", {"steps": 3}, start=False)
    with refused(found="a count", do="duplicate"):
        job_control.continue_from(store, job.id)


def test_the_first_in_the_queue_can_be_held_and_comes_back(store: Store):
    first, second = [jobs.submit(store, "count", {"steps": 3}, start=False) for _ in range(2)]
    assert command(store, "pause", first.id)["state"] == "paused"
    wait_for(store, second.id, "done")  # any look starts the worker
    assert jobs.show(store, first.id).state == "paused"
    command(store, "resume", first.id)
    wait_for(store, first.id, "done")


def test_a_job_that_hangs_says_so_and_can_be_cancelled(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_GRACE", "0.5")
    monkeypatch.setattr(job_listing, "SILENCE", 1.0)
    job = running(store, pause=0.02)
    assert jobs.show(store, job.id).silence == ""
    os.kill(pid_of(store, job.id), signal.SIGSTOP)
    until(lambda: jobs.show(store, job.id).silence != "")
    assert jobs.show(store, job.id).state == "running"
    assert "no progress for" in jobs.show(store, job.id).silence
    jobs.cancel(store, job.id)
    assert wait_for(store, job.id, "cancelled").silence == ""


def test_a_job_that_hangs_for_longer_than_the_limit_has_failed_and_the_queue_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_MOST_SILENCE", "0.1")  # minutes
    job = running(store, pause=0.02)
    behind = jobs.submit(store, "count", {"steps": 1})
    os.kill(pid_of(store, job.id), signal.SIGSTOP)
    failed = wait_for(store, job.id, "failed", "done")
    assert failed.error.startswith("ended: no progress for 0.1 minutes")
    # on a busy machine it may itself be silent for that long while it starts
    wait_for(store, behind.id, "done", "failed", seconds=60)
