"""A job that is stopped while its process starts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from workbench.workspace import jobs, processes
from workbench.workspace.store import Store

from .conftest import until, wait_for


def test_a_pause_during_the_imports_is_a_pause(store: Store):
    job = jobs.submit(store, "count", {"steps": 2000})
    until(lambda: jobs.show(store, job.id).state == "running")  # it has written nothing yet
    jobs.pause(store, job.id)
    paused = wait_for(store, job.id, "paused", "failed", "lost")
    assert paused.state == "paused", paused.error
    assert wait_for(store, jobs.resume(store, job.id).id, "running").attempt == 2


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
