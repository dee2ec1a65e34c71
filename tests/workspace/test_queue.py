"""The queue under everything that kills: workers, jobs, machines, databases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from workbench.records import BadInput
from workbench.workspace import jobs, processes
from workbench.workspace.processes import alive, identity
from workbench.workspace.store import Store

from .conftest import KINDS, free, until, wait_for


def pid_of(store: Store, job: str) -> int:
    with store.db(write=False) as db:
        return db.execute("SELECT pid FROM job WHERE id = ?", (job,)).fetchone()["pid"]


def worker_pid(store: Store) -> int:
    """The worker of this workspace; its lock is taken a moment before its process has a name."""
    pids: list[int] = []

    def runs() -> bool:
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "workbench.workspace.worker" in command and str(store.workspace) in command:
                pids.append(process.pid)
        return bool(pids)

    until(runs)
    return pids[0]


def running(store: Store, steps: int = 2000, **spec: object) -> jobs.Job:
    """A job that has made its first steps."""
    job = jobs.submit(store, "count", {"steps": steps, **spec})
    until(lambda: len(jobs.metrics(store, job.id)[0]) > 2)
    return jobs.show(store, job.id)


def diary(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_jobs_run_in_order_one_at_a_time_with_two_workers_started_at_once(
    store: Store, tmp_path: Path
):
    spec = {"steps": 20, "diary": str(tmp_path / "diary")}
    queued = [jobs.submit(store, "count", spec, start=False) for _ in range(4)]
    assert [job.place for job in queued] == [0, 1, 2, 3]
    jobs.move(store, queued[3].id, 0)
    command = [
        sys.executable,
        "-m",
        "workbench.workspace.worker",
        "--workspace",
        str(store.workspace),
        "--device",
        "cpu",
    ]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [w.wait(60) for w in workers] == [0, 0, 0]
    entries = diary(tmp_path / "diary")
    order = [queued[i].id for i in (3, 0, 1, 2)]
    assert [(e[1], e[2]) for e in entries] == [
        (what, job) for job in order for what in ("start", "end")
    ]
    assert {job.state for job in jobs.list_jobs(store)} == {"done"}
    assert jobs.show(store, "2").result == {"counted": 20}
    assert "attempt 1" in jobs.log_tail(store, "2")


def test_many_submits_at_once_lose_none(store: Store):
    code = (
        "import sys; from workbench.plugins import load_plugin\n"
        "from workbench.workspace import jobs; from workbench.workspace.store import Store\n"
        "load_plugin(sys.argv[2])\n"
        "for _ in range(5): jobs.submit(Store(sys.argv[1]), 'count', {'steps': 1, 'pause': 0})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(store.workspace), str(KINDS)])
        for _ in range(3)
    ]
    assert [p.wait(60) for p in processes] == [0, 0, 0]
    until(lambda: [job.state for job in jobs.list_jobs(store)] == ["done"] * 15, 60)


def test_a_killed_job_is_not_done_and_shows_its_log(store: Store):
    job = jobs.submit(store, "count", {"steps": 50, "die_at": 5})
    ended = wait_for(store, job.id, "failed", "lost")
    assert "SIGKILL" in ended.error
    assert "about to die" in ended.error
    assert ended.result is None
    assert ended.step < 50


def test_resume_goes_on_from_the_checkpoint_in_the_same_folder(store: Store):
    job = jobs.submit(store, "count", {"steps": 30, "die_at": 20, "every": 8})
    wait_for(store, job.id, "failed")
    assert [row["step"] for row in jobs.metrics(store, job.id)[0]] == list(range(1, 20))
    again = jobs.resume(store, job.id)
    assert (again.id, again.folder) == (job.id, job.folder)
    done = wait_for(store, job.id, "done")
    assert done.attempt == 2
    assert [row["step"] for row in jobs.metrics(store, job.id)[0]] == list(range(1, 31)), (
        "no hole and no double"
    )


def test_a_job_outlives_its_worker_and_the_queue_goes_on(store: Store, tmp_path: Path):
    spec = {"steps": 60, "pause": 0.02, "diary": str(tmp_path / "diary")}
    first = running(store, **spec)
    second = jobs.submit(store, "count", spec)
    old = worker_pid(store)
    os.kill(old, signal.SIGKILL)
    until(lambda: identity(old) is None)
    assert jobs.show(store, first.id).state == "running"
    jobs.wake(store)
    until(lambda: not free(store, "worker"))
    assert worker_pid(store) != old
    assert wait_for(store, second.id, "done").state == "done"
    assert jobs.show(store, first.id).state == "done"
    assert jobs.show(store, first.id).attempt == 1
    assert [e[1] for e in diary(tmp_path / "diary")] == ["start", "end", "start", "end"], (
        "never two at a time"
    )


def test_a_job_that_ends_without_any_worker_is_done_by_its_own_word(store: Store):
    job = running(store, steps=40)
    os.kill(worker_pid(store), signal.SIGKILL)
    assert wait_for(store, job.id, "done").ended is not None


def test_a_job_killed_with_its_worker_is_lost_and_can_be_resumed(store: Store):
    job = running(store, steps=400)
    os.kill(worker_pid(store), signal.SIGKILL)
    os.kill(pid_of(store, job.id), signal.SIGKILL)
    lost = wait_for(store, job.id, "lost")
    assert "without a trace" in lost.error
    assert jobs.mark_stopped(store, job.id).state == "cancelled"
    jobs.resume(store, job.id)
    wait_for(store, job.id, "running")


def test_after_a_restart_of_the_machine_a_running_job_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    job = running(store)
    with monkeypatch.context() as patch:
        patch.setattr(processes, "boot_id", lambda: "another")
        assert jobs.show(store, job.id).state == "lost"
    assert jobs.show(store, job.id).state == "running"


def test_cancel_stops_a_running_job_and_a_queued_one(store: Store):
    job = running(store)
    queued = jobs.submit(store, "count", {"steps": 5})
    assert jobs.cancel(store, queued.id).state == "cancelled"
    assert jobs.cancel(store, job.id).state in ("stopping", "cancelled")
    ended = wait_for(store, job.id, "cancelled")
    assert 0 < ended.step < 2000
    with pytest.raises(BadInput) as error:
        jobs.cancel(store, job.id)
    assert error.value.found == f"job {job.id} is cancelled"


def test_cancel_is_firm_with_a_job_that_does_not_listen(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_GRACE", "0.5")
    job = jobs.submit(store, "deaf", {"started": str(tmp_path / "started")})
    until((tmp_path / "started").exists)
    jobs.cancel(store, job.id)
    assert jobs.show(store, job.id).state == "stopping"
    wait_for(store, job.id, "cancelled")


def test_a_crash_after_pause_is_no_pause(store: Store):
    job = running(store, die_stopping=True, every=1000)
    jobs.pause(store, job.id)
    ended = wait_for(store, job.id, "paused", "failed", "lost")
    assert ended.state == "failed"
    assert "SIGKILL" in ended.error
    assert "pause" in ended.error
    assert "about to die" in ended.error, "the log's last lines"
    assert ended.resumable


def test_a_crash_after_pause_that_no_worker_saw_is_no_pause(store: Store):
    job = running(store, die_stopping=True, every=1000, pause=0.2)
    os.kill(worker_pid(store), signal.SIGKILL)
    (job.folder / "stop").write_text("pause")
    with store.db() as db:
        db.execute("UPDATE job SET stop = 'pause', stop_at = 0 WHERE id = ?", (job.id,))
    lost = wait_for(store, job.id, "paused", "failed", "lost")
    assert lost.state == "lost"
    assert "about to die" in lost.error


def test_pause_frees_the_device_and_resume_continues(store: Store):
    job = running(store, steps=60, pause=0.02, every=1000)
    jobs.pause(store, job.id)
    paused = wait_for(store, job.id, "paused")
    assert paused.resumable
    other = jobs.submit(store, "count", {"steps": 3})
    wait_for(store, other.id, "done")
    jobs.resume(store, job.id)
    wait_for(store, job.id, "done")
    assert [row["step"] for row in jobs.metrics(store, job.id)[0]] == list(range(1, 61))


@pytest.mark.parametrize(
    ("kind", "word", "tail"),
    [
        ("bad", "a triangle; expected a square; turn it", False),
        ("crash", "ZeroDivisionError: by design", True),
        ("hollow", "exit code 0 without a result", True),
    ],
)
def test_failed_says_why(store: Store, kind: str, word: str, tail: bool):
    job = jobs.submit(store, kind, {})
    ended = wait_for(store, job.id, "failed")
    assert word in ended.error
    assert (len(ended.error.splitlines()) > 1) == tail


def test_a_deleted_database_comes_back_from_the_folders(store: Store):
    done = jobs.submit(store, "count", {"steps": 2})
    wait_for(store, done.id, "done")
    run = running(store)
    queued = jobs.submit(store, "count", {"steps": 1}, title="the last")
    before = [job.model_dump() for job in jobs.list_jobs(store)][0::2]
    for file in store.workspace.glob("workbench.db*"):
        file.unlink()
    after = {job.id: job for job in jobs.list_jobs(store)}
    assert [after[queued.id].model_dump(), after[done.id].model_dump()] == before
    assert after[run.id].state == "running"
    jobs.cancel(store, run.id)
    wait_for(store, queued.id, "done")
    assert jobs.submit(store, "count", {"steps": 1}).id.startswith("0004")


def test_a_pid_of_another_process_is_not_the_job():
    me = identity()
    assert me is not None
    assert alive(me)
    assert not alive(replace(me, start=me.start + 1))
    assert not alive(replace(me, boot="another"))
    assert not alive(None)
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: identity(child.pid) is None)  # a zombie is dead
    child.wait()


def test_a_change_of_the_clock_kills_no_job(monkeypatch: pytest.MonkeyPatch):
    me = identity()
    started = psutil.boot_time()
    create_time = psutil.Process().create_time()
    monkeypatch.setattr(processes.psutil, "boot_time", lambda: started - 3600)
    monkeypatch.setattr(processes.psutil.Process, "create_time", lambda self: create_time - 3600)
    assert alive(me)


def test_the_worker_leaves_when_nothing_comes(store: Store):
    job = jobs.submit(store, "count", {"steps": 1})
    wait_for(store, job.id, "done")
    until(lambda: free(store, "worker"))
    assert json.loads((job.folder / "job.json").read_text())["state"] == "done"
    assert time.time() - (jobs.show(store, job.id).ended or 0) < 30


def test_a_worker_gets_the_environment_as_it_is(tmp_path: Path):
    """Nothing here switches the Hub off, or on."""
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    child = processes.start_detached(["-c", code], tmp_path / "log.txt")
    assert child.wait(30) == 0
    inside = json.loads((tmp_path / "log.txt").read_text())
    different = {name for name in inside if inside[name] != os.environ.get(name)}
    assert different <= {"PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", "LC_CTYPE"}
    assert ("HF_HUB_OFFLINE" in inside) == ("HF_HUB_OFFLINE" in os.environ)
