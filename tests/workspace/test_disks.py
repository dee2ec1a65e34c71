"""A workspace on a disk that is full, or that nobody can write to: real small disks (tmpfs)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.plugins import load_plugin
from workbench.workspace import jobs
from workbench.workspace.store import Store

from .conftest import KINDS, ROOT, free, until, wait_for


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a disk here")
    load_plugin(KINDS)
    monkeypatch.setenv("WORKBENCH_IDLE", "0.3")
    monkeypatch.setenv("WORKBENCH_DISK_FLOOR", "0")
    monkeypatch.setenv("WORKBENCH_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def command(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`workbench ..` in another process."""
    line = [sys.executable, "-m", "workbench", *arguments, "--workspace", str(store.workspace)]
    return subprocess.run(line, capture_output=True, text=True)


def leave(store: Store) -> None:
    """Wait until the worker has left: it holds the disk."""
    until(lambda: free(store, "worker"), 60)


def test_a_full_disk_during_checkpoints(disk: Path):
    store = Store(disk / "workspace")
    job = jobs.submit(store, "fill", {})
    ended = wait_for(store, job.id, "failed", "lost", "done", seconds=60)
    assert ended.state == "failed"
    assert "no space left" in ended.error
    assert len(ended.error.splitlines()) == 1
    listed = command(store, "jobs", "--json")
    assert listed.returncode == 0, listed.stderr
    [row] = json.loads(listed.stdout)["jobs"]
    assert (row["state"], row["error"]) == ("failed", ended.error)
    leave(store)
    for file in (job.folder / "checkpoints").iterdir():
        file.unlink()
    assert jobs.resume(store, job.id, start=False).state == "queued", "with room it goes on"


def test_a_job_that_fills_the_disk_is_stopped_while_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk that is smaller than what is to stay free: half of it may be taken."""
    monkeypatch.setenv("WORKBENCH_DISK_FLOOR", "1")
    store = Store(disk / "workspace")
    job = jobs.submit(store, "fill", {"pause": 0.04})
    ended = wait_for(store, job.id, "failed", "lost", "done", seconds=60)
    assert ended.state == "failed"
    assert "MB left" in ended.error and "WORKBENCH_DISK_FLOOR" in ended.error
    assert len(ended.error.splitlines()) == 1
    assert shutil.disk_usage(disk).free > 300_000, "it did not run into the end of the disk"
    leave(store)
    saved = [int(file.name) for file in (job.folder / "checkpoints").iterdir()]
    assert ended.step == max(saved), "what it has written is whole"
    assert jobs.resume(store, job.id, start=False).state == "queued"


def fill_up(file: Path) -> None:
    with open(file, "wb", buffering=0) as ballast:
        while True:
            ballast.write(b"\0" * 4096)


def test_a_job_is_cancelled_on_a_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_GRACE", "0.5")
    store = Store(disk / "workspace")
    job = jobs.submit(store, "deaf", {"started": str(disk / "started")})
    until((disk / "started").exists, 60)
    with pytest.raises(OSError, match="No space left"):
        fill_up(disk / "ballast")
    assert jobs.show(store, job.id).state == "running"
    assert command(store, "jobs", "cancel", job.id).returncode == 0
    assert wait_for(store, job.id, "cancelled", "failed", "lost", seconds=60).state == "cancelled"
    (disk / "ballast").unlink()
    leave(store)


def test_a_workspace_that_nobody_can_write_to(disk: Path):
    store = Store(disk / "workspace")
    done = jobs.submit(store, "count", {"steps": 2})
    wait_for(store, done.id, "done", seconds=60)
    leave(store)
    queued = jobs.submit(store, "deaf", {"started": str(disk / "started")}, start=False)
    jobs.pause(store, queued.id)
    remount = ["mount", "-o", "remount,ro", str(disk)]
    until(lambda: subprocess.run(remount, capture_output=True).returncode == 0)  # not in use
    listed = command(store, "jobs", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [row["state"] for row in json.loads(listed.stdout)["jobs"]] == ["paused", "done"]
    assert command(store, "jobs", "show", done.id).returncode == 0
    for arguments in (["jobs", "cancel", queued.id], ["jobs", "resume", queued.id]):
        refused = command(store, *arguments)
        assert refused.returncode == 2
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
