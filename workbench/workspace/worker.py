"""The worker of one device: takes queued jobs in order, one at a time, and leaves when none comes.

    python -m workbench.workspace.worker --workspace DIR --device cpu

One worker per device (a lock); one job per device (a second lock, which the job inherits: a killed
worker's successor cannot start another job while it runs). It keeps no state that it could lose.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

from . import job_rows
from .job_rows import JobRow
from .job_state import ended_state
from .processes import alive, identity, kill, lock_path, start_detached, try_lock
from .store import Store

TICK = 0.05  # seconds
GRACE = {"pause": 600.0, "cancel": 60.0}  # seconds; a pause may have much to save


def seconds(name: str, default: float) -> float:
    """A time from the environment."""
    return float(os.environ.get(name, default))


# --- serving the queue ----------------------------------------------------------------------------


def work(store: Store, device: str) -> bool:
    """Serve the queue until it stays empty. Returns False where another worker does already."""
    lock = acquire(store, "worker", device)
    while lock is not None:
        serve(store, device)
        os.close(lock)
        # A job may have come between our last look and the release, while its submitter saw the
        # lock held.
        if next_job(store, device) is None:
            return True
        lock = acquire(store, "worker", device)
    return False


def acquire(store: Store, role: str, device: str) -> int | None:
    """The lock of a role, tried for a second: someone's probe may hold it for a moment."""
    for _ in range(20):
        lock = try_lock(lock_path(store.workspace, role, device))
        if lock is not None:
            return lock
        time.sleep(TICK)
    return None


def serve(store: Store, device: str) -> None:
    """Run queued jobs; return when there was none for $WORKBENCH_IDLE (5) seconds and no job is
    left to look after.
    """
    last_busy = time.monotonic()
    while time.monotonic() - last_busy < seconds("WORKBENCH_IDLE", 5):
        if look_after(store, device):
            last_busy = time.monotonic()
        if next_job(store, device) is None:
            time.sleep(4 * TICK)
            continue
        last_busy = time.monotonic()
        device_lock = try_lock(lock_path(store.workspace, "device", device))
        if device_lock is not None:
            try:
                run_next(store, device, device_lock)
            finally:
                os.close(device_lock)
        time.sleep(TICK)


def next_job(store: Store, device: str) -> str | None:
    """The id of the queued job that the device runs next."""
    with store.db(write=False) as db:
        row = job_rows.next_in_queue(db, device)
    if row is None:
        return None
    return row.id


def look_after(store: Store, device: str) -> bool:
    """Write down how jobs ended whose worker was killed, and use force on those that do not stop.

    Returns whether one has still to stop.
    """
    with store.db(write=False) as db:
        rows = job_rows.running_rows(db, device)
    stopping = False
    for row in rows:
        if alive(row.process):
            insist(row)
            stopping = stopping or row.stop is not None
        else:
            settle(store, row.id, row.pid, None)
    return stopping


def insist(row: JobRow) -> None:
    """SIGKILL to a job that has not stopped a grace time after it was to."""
    if row.stop is None or row.stop_at is None:
        return
    grace = seconds("WORKBENCH_GRACE", GRACE[row.stop])
    if time.time() - row.stop_at > grace:
        kill(row.process)


def settle(store: Store, job: str, pid: int | None, code: int | None) -> None:
    """Write down how a job ended, unless it has been started again meanwhile.

    code: its exit status, None where nobody saw it.
    """
    folder = job_rows.folder_of(store.workspace, job)
    with store.db() as db:
        row = job_rows.read_row(db, job)
        if row is None or row.state != "running" or row.pid != pid or not folder.is_dir():
            return
        state, error = ended_state(folder, row.stop, code)
        values = {"state": state, "error": error, "ended": time.time(), "pid": None}
        job_rows.update_row(db, folder, values)


# --- running one job ------------------------------------------------------------------------------


def run_next(store: Store, device: str, device_lock: int) -> None:
    """Start the next job as a detached child that inherits the device's lock, and wait for it."""
    started = claim(store, device, device_lock)
    if started is None:
        return
    job, child = started
    settle(store, job, child.pid, wait_for(store, job, child))


def wait_for(store: Store, job: str, child: subprocess.Popen[bytes]) -> int:
    """The exit status of a job's process."""
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            with store.db(write=False) as db:
                row = job_rows.read_row(db, job)
            if row is not None:
                insist(row)


def claim(
    store: Store, device: str, device_lock: int
) -> tuple[str, subprocess.Popen[bytes]] | None:
    """Take the next job and start it, in one transaction: no row says running without a process.

    Where the worker is killed between the two, the child writes itself into the row (`enter`).
    """
    with store.db() as db:
        row = job_rows.next_in_queue(db, device)
        if row is None:
            return None
        folder = job_rows.folder_of(store.workspace, row.id)
        if not folder.is_dir():  # deleted by hand
            db.execute("DELETE FROM job WHERE id = ?", (row.id,))
            return None
        for name in ("outcome.json", "result.json", "stop"):
            (folder / name).unlink(missing_ok=True)
        child = start_detached(
            ["-m", "workbench.tasks", str(folder)], folder / "log.txt", pass_fds=(device_lock,)
        )
        values = job_rows.started_columns(row, child.pid)
        this_worker = identity()
        if this_worker is not None:
            values |= {"keeper": this_worker.pid, "keeper_start": this_worker.start}
        job_rows.update_row(db, folder, values)
        return row.id, child


def enter(store: Store, job: str) -> None:
    """The child's first act: write itself into the row, where its worker was killed before it
    could.
    """
    with store.db() as db:
        row = job_rows.read_row(db, job)
        if row is not None and (row.state, row.pid) != ("running", os.getpid()):
            folder = job_rows.folder_of(store.workspace, job)
            job_rows.update_row(db, folder, job_rows.started_columns(row))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workbench.workspace.worker",
        description="Run the queued jobs of one device, and leave when none comes.",
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--device", required=True)
    arguments = parser.parse_args()
    work(Store(arguments.workspace), arguments.device)


if __name__ == "__main__":
    main()
