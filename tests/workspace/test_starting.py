"""A job that is stopped while its process starts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.workspace import jobs, processes
from workbench.workspace.store import Store

from .conftest import KINDS, until, wait_for


def test_a_pause_during_the_imports_is_a_pause(store: Store):
    job = jobs.submit(store, "count", {"steps": 2000})
    until(lambda: jobs.show(store, job.id).state == "running")  # it has written nothing yet
    jobs.pause(store, job.id)
    paused = wait_for(store, job.id, "paused", "failed", "lost")
    assert paused.state == "paused", paused.error
    assert wait_for(store, jobs.resume(store, job.id).id, "running").attempt == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_the_exit_code_says_whether_to_run_the_command_again(
    number: signal.Signals, code: int, store: Store
):
    command = [sys.executable, "-m", "workbench", "count", "--steps", "4000"]
    command += ["--plugin", str(KINDS), "--workspace", str(store.workspace)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    until(lambda: any(job.step > 2 for job in jobs.list_jobs(store)), 60)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    [job] = jobs.list_jobs(store)
    assert job.state == "paused"


def test_a_sigterm_waits_until_it_is_let_in(tmp_path: Path):
    code = (
        "import signal, time; time.sleep(0.5); print('imported', flush=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked to stop', flush=True))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})"
    )
    log = tmp_path / "log.txt"
    child = processes.start_detached(["-c", code], log, holds_sigterm=True)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0
    assert log.read_text() == "imported\nasked to stop\n"
    plain = subprocess.run(
        [sys.executable, "-c", "import signal; print(signal.pthread_sigmask(0, []))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert plain.stdout.strip() == "set()", "the parent's own mask is as before"


def test_many_looks_at_once_start_one_worker(store: Store):
    job = jobs.submit(store, "count", {"steps": 3}, start=False)
    started = [jobs.ensure_worker(store.workspace, "cpu") for _ in range(5)]
    assert started == [True, False, False, False, False]
    wait_for(store, job.id, "done", seconds=60)
