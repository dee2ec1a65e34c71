"""The database is an index: locked, damaged, read-only or full, it stops no work and hides no job."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from workbench.workspace import database, filesystems, jobs
from workbench.workspace.database import IndexUnavailable
from workbench.workspace.store import Store

from .conftest import free, until, wait_for
from .test_queue import running
from .test_store import a_plan, names

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement).fetchall()
print("held", flush=True)
sys.stdin.read()
"""
ALL = ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "SELECT count(*) FROM job")
WRITES = ("BEGIN IMMEDIATE",)


@contextmanager
def locked(store: Store, statements: tuple[str, ...]) -> Iterator[None]:
    """Another process holds the database."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield
    finally:
        holder.kill()
        holder.communicate()


def workbench(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "workbench", *arguments, "--workspace", str(store.workspace)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes wait for a lock as shortly as looks do; processes that are started wait as ever."""
    monkeypatch.setattr(database, "CHANGE_PATIENCE", 1.0)


def test_a_job_ends_as_done_while_another_process_holds_the_database(store: Store):
    job = running(store, steps=60, pause=0.02)
    with locked(store, WRITES):
        until((job.folder / "outcome.json").exists, 60)
        until(lambda: jobs.show(store, job.id).state == "done")
        assert jobs.show(store, job.id).result == {"counted": 60}
    assert wait_for(store, job.id, "done").error == ""


def test_a_job_without_any_access_to_the_database_runs_from_its_folder(store: Store):
    job = jobs.submit(store, "count", {"steps": 5}, start=False)
    with locked(store, ALL):
        child = [sys.executable, "-m", "workbench.tasks", str(job.folder), "1"]
        assert subprocess.run(child, check=False, timeout=120).returncode == 0
    assert (job.folder / "result.json").exists()
    jobs.wake(store)  # the row says queued: the next worker goes by the job's own word
    done = wait_for(store, job.id, "done")
    assert done.result == {"counted": 5}
    assert len(jobs.metrics(store, job.id)[0]) == 5, "it did not run twice"


@pytest.mark.parametrize("statements", [WRITES, ALL])
def test_looking_works_while_the_database_is_locked(
    store: Store, impatient: None, statements: tuple[str, ...]
):
    a_plan().save(store.workspace / "plans" / "mine.yaml")
    job = jobs.submit(store, "count", {"steps": 5}, start=False)
    with locked(store, statements):
        assert [entry.id for entry in jobs.list_jobs(store)] == [job.id]
        assert jobs.show(store, "1").place == 0
        assert names(store.plans()) == {"mine"}
        assert names(Store(store.workspace).plans()) == {"mine"}
        assert job.id in workbench(store, "jobs", "list").stdout
        with pytest.raises(IndexUnavailable) as error:
            jobs.submit(store, "count", {"steps": 1}, start=False)
        assert "locked by another process" in error.value.found
    jobs.cancel(store, job.id)
    assert len(jobs.list_jobs(store)) == 1, "the refused one left nothing"


def test_a_running_job_is_cancelled_while_the_database_is_locked(store: Store, impatient: None):
    job = running(store)
    with locked(store, ALL):
        jobs.cancel(store, job.id)
        wait_for(store, job.id, "cancelled")


@pytest.mark.parametrize("damage", ["missing", "empty", "random", "torn"])
def test_a_damaged_database_is_made_again_from_the_folders(
    store: Store, damage: str, capfd: pytest.CaptureFixture[str]
):
    a_plan().save(store.workspace / "plans" / "mine.yaml")
    made = [jobs.submit(store, "count", {"steps": 5}, start=False).id for _ in range(3)]
    jobs.cancel(store, made[1])
    before = store.path.read_bytes()
    if damage == "missing":
        store.path.unlink()
    elif damage == "empty":
        store.path.write_bytes(b"")
    elif damage == "random":
        store.path.write_bytes(random.Random(0).randbytes(len(before)))
    else:
        half = len(before) // 2
        noise = random.Random(0).randbytes(len(before) - half)
        store.path.write_bytes(before[:half] + noise)
    fresh = Store(store.workspace)
    assert [job.id for job in jobs.list_jobs(fresh)] == made[::-1]
    assert [job.state for job in jobs.list_jobs(fresh)] == ["queued", "cancelled", "queued"]
    assert names(fresh.plans()) == {"mine"}
    assert ("made again from the folders" in capfd.readouterr().err) == (damage != "missing")
    assert jobs.submit(fresh, "count", {"steps": 1}, start=False).id.startswith("0004")
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_database_damaged_while_a_store_is_open_is_made_again(store: Store):
    job = jobs.submit(store, "count", {"steps": 5}, start=False)
    store.path.write_bytes(b"this is no database" * 300)
    assert [entry.id for entry in jobs.list_jobs(store)] == [job.id]
    assert jobs.cancel(store, job.id).state == "cancelled"


def test_a_moved_workspace_resumes_its_jobs(store: Store, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("a fox\n")
    spec = {
        "steps": 30,
        "die_at": 20,
        "prompts": str(tmp_path / "prompts.txt"),
        "out": str(store.workspace / "plans" / "x.yaml"),
    }
    job = jobs.submit(store, "count", spec)
    wait_for(store, job.id, "failed")
    until(lambda: free(store, "worker"))
    os.rename(store.workspace, tmp_path / "elsewhere")
    moved = Store(tmp_path / "elsewhere")
    jobs.resume(moved, job.id)
    done = wait_for(moved, job.id, "done")
    assert Path(done.spec["prompts"]).read_text() == "a fox\n"
    assert done.spec["out"] == str(tmp_path / "elsewhere" / "plans" / "x.yaml")
    assert done.folder.parents[1] == tmp_path / "elsewhere"
    until(lambda: free(moved, "worker"))
    os.rename(moved.workspace, store.workspace)  # it can move back, too
    assert jobs.show(Store(store.workspace), job.id).spec == job.spec


def test_a_clock_set_back_does_not_stall_a_cancel(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_GRACE", "0.5")
    job = jobs.submit(store, "deaf", {"started": str(tmp_path / "started")})
    until((tmp_path / "started").exists)
    jobs.cancel(store, job.id)
    with store.db() as db:  # as if the clock had been an hour ahead when it was asked
        db.execute("UPDATE job SET stop_at = ?", (time.time() + 3600,))
    wait_for(store, job.id, "cancelled")


def test_a_worker_that_cannot_start_says_why_on_the_jobs_row(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "psutil.py").write_text("raise ImportError('no such driver')\n")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "broken"))
        job = jobs.submit(store, "count", {"steps": 1})
        until(lambda: "no such driver" in jobs.show(store, job.id).error)
        assert jobs.show(store, job.id).state == "queued"
        assert "no such driver" in jobs.list_jobs(store)[0].error
    jobs.wake(store)
    assert wait_for(store, job.id, "done").error == ""


# --- folders that machines share ------------------------------------------------------------------


def test_the_kind_of_a_folder_is_that_of_the_innermost_mount():
    mounted = [("/", "ext4"), ("/home", "nfs4"), ("/home/ann/local", "xfs"), ("/scratch", "lustre")]
    kinds = {
        "/home/ann": "nfs4",
        "/home/ann/local/x": "xfs",
        "/homes": "ext4",
        "/scratch": "lustre",
    }
    for folder, kind in kinds.items():
        assert filesystems.kind_of(Path(folder), mounted) == kind
    assert filesystems.kind_of(Path("/home"), [*mounted, ("/home", "tmpfs")]) == "tmpfs"


def journal_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        [mode] = db.execute("PRAGMA journal_mode").fetchone()
    return str(mode)


def test_on_a_shared_folder_there_is_no_write_ahead_log_and_jobs_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The one made there, and one that was made elsewhere and moved there."""
    assert journal_of(store.path) == "wal"
    made_elsewhere = Store(tmp_path / "moved")
    assert journal_of(made_elsewhere.path) == "wal"
    monkeypatch.setattr(database, "is_shared", lambda folder: True)
    for name in ("made", "moved"):
        store = Store(tmp_path / name)
        assert journal_of(store.path) == "delete"
        job = jobs.submit(store, "count", {"steps": 3})
        wait_for(store, job.id, "done")
        assert not Path(f"{store.path}-wal").exists()
        assert jobs.show(store, job.id).result == {"counted": 3}
