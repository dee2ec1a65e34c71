"""The worker of one device: takes queued jobs in order, one at a time, and leaves when none comes.

    python -m workbench.workspace.worker --workspace DIR --device cpu

One worker per device (a lock); one job per device (a second lock, which the job inherits: a killed
worker's successor cannot start another job while it runs). It keeps no state that it could lose.
Where the database cannot be used it waits: jobs that run need their folders only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from ..records import State
from . import job_rows
from .database import IndexUnavailable
from .hanging import SilenceClock
from .job_end import ended_state
from .job_files import clear_end, read_outcome, read_stop, write_exit_code
from .notices import notify
from .processes import (
    ProcessIdentity,
    alive,
    identity,
    kill,
    lock_path,
    start_detached,
    try_lock,
)
from .store import Store

TICK = 0.05  # seconds
ENTER_PATIENCE = 5.0  # seconds
GRACE = {"pause": 600.0, "cancel": 60.0}  # seconds; a pause may have much to save


def seconds(name: str, default: float) -> float:
    """A time from the environment."""
    return float(os.environ.get(name, default))


# --- serving the queue ----------------------------------------------------------------------------


def work(store: Store, device: str, lock: int | None = None) -> bool:
    """Serve the queue until it stays empty. Returns False where another worker does already.

    lock: the worker's, where whoever started this process took it for us.
    """
    if lock is None:
        lock = acquire(store, "worker", device)
    while lock is not None:
        serve(store, device)
        os.close(lock)
        # A job may have come between our last look and the release, while its submitter saw the
        # lock held.
        with suppress(IndexUnavailable):
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
    clock = StopClock()
    while time.monotonic() - last_busy < seconds("WORKBENCH_IDLE", 5):
        try:
            if serve_once(store, device, clock):
                last_busy = time.monotonic()
        except IndexUnavailable as error:  # where it lasts, we leave when idle
            print(error, flush=True)
            time.sleep(1)


def serve_once(store: Store, device: str, clock: StopClock) -> bool:
    """Look after running jobs and run the next one. Returns whether there was anything to do."""
    busy = look_after(store, device, clock)
    if next_job(store, device) is None:
        time.sleep(4 * TICK)
        return busy
    device_lock = try_lock(lock_path(store.workspace, "device", device))
    if device_lock is not None:
        try:
            run_next(store, device, device_lock, clock)
        finally:
            os.close(device_lock)
    time.sleep(TICK)
    return True


def next_job(store: Store, device: str) -> str | None:
    """The id of the queued job that the device runs next."""
    with store.db(write=False) as db:
        row = job_rows.next_in_queue(db, device)
    if row is None:
        return None
    return row.id


def look_after(store: Store, device: str, clock: StopClock) -> bool:
    """Write down how jobs ended whose worker was killed, and use force on those that do not stop.

    Returns whether one has still to stop.
    """
    with store.db(write=False) as db:
        rows = job_rows.running_rows(db, device)
    stopping = False
    for row in rows:
        folder = job_rows.folder_of(store.workspace, row.id)
        if alive(row.process):
            how = row.stop or read_stop(folder)
            clock.insist(how, row.process)
            clock.silence.insist(folder, row.process)
            stopping = stopping or how is not None
        else:
            settle(store, row.id, row.pid, None)
    return stopping


class StopClock:
    """Since when this worker has seen processes that were to stop, by a clock that nobody sets.

    silence: and since when it has heard nothing of them.
    """

    def __init__(self) -> None:
        self.since: dict[ProcessIdentity, float] = {}
        self.silence = SilenceClock()

    def insist(self, how: str | None, process: ProcessIdentity | None) -> None:
        """SIGKILL to a process that has not stopped a grace time after it was to ("pause" or
        "cancel"; None where it may run on).
        """
        if how is None or process is None:
            return
        first = self.since.setdefault(process, time.monotonic())
        if time.monotonic() - first > seconds("WORKBENCH_GRACE", GRACE[how]):
            kill(process)


def settle(store: Store, job: str, pid: int | None, code: int | None) -> None:
    """Write down how a job ended, unless it has been started again meanwhile.

    code: its exit status, None where nobody saw it. It goes to the job's folder first: where the
    database cannot be used, whoever looks reads the folder.
    """
    folder = job_rows.folder_of(store.workspace, job)
    if code is not None and folder.is_dir():
        write_exit_code(folder, code)
    ended: State | None = None
    with suppress(IndexUnavailable, OSError), store.db() as db:
        row = job_rows.read_row(db, job)
        if row is None or row.state != "running" or row.pid != pid or not folder.is_dir():
            return
        state, error = ended_state(folder, row.stop, code)
        values = {"state": state, "error": error, "ended": time.time(), "pid": None}
        job_rows.update_row(db, folder, values)
        ended = state
    if ended is not None:
        notify(folder, ended)


# --- running one job ------------------------------------------------------------------------------


def run_next(store: Store, device: str, device_lock: int, clock: StopClock) -> None:
    """Start the next job as a detached child that inherits the device's lock, and wait for it."""
    started = claim(store, device, device_lock)
    if started is None:
        return
    job, child = started
    settle(store, job, child.pid, wait_for(store, job, child, clock))


def wait_for(store: Store, job: str, child: subprocess.Popen[bytes], clock: StopClock) -> int:
    """The exit status of a job's process."""
    process = identity(child.pid)
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            clock.insist(stop_of(store, job), process)
            clock.silence.insist(job_rows.folder_of(store.workspace, job), process)


def stop_of(store: Store, job: str) -> str | None:
    """ "pause" or "cancel" where a job is to stop, by its row or its folder."""
    how = read_stop(job_rows.folder_of(store.workspace, job))
    if how is None:
        with suppress(IndexUnavailable), store.db(write=False) as db:
            row = job_rows.read_row(db, job)
            how = row.stop if row else None
    return how


def claim(
    store: Store, device: str, device_lock: int
) -> tuple[str, subprocess.Popen[bytes]] | None:
    """Take the next job and start it, in one transaction: no row says running without a process.

    Where the worker is killed between the two, the child writes itself into the row (`enter`); where
    the child could not either, the job has ended by its own word when it is next in the queue.
    """
    with store.db() as db:
        row = job_rows.next_in_queue(db, device)
        if row is None:
            return None
        folder = job_rows.folder_of(store.workspace, row.id)
        if row.state == "damaged" or not folder.is_dir():  # deleted by hand
            db.execute("DELETE FROM job WHERE id = ?", (row.id,))
            return None
        if read_outcome(folder) is not None:
            state, error = ended_state(folder, row.stop, None)
            job_rows.update_row(db, folder, {"state": state, "error": error, "ended": time.time()})
            return None
        clear_end(folder)
        child = start_detached(
            ["-m", "workbench.tasks", str(folder), str(row.attempt + 1)],
            folder / "log.txt",
            pass_fds=(device_lock,),
            holds_sigterm=True,
        )
        values = job_rows.started_columns(row, child.pid)
        this_worker = identity()
        if this_worker is not None:
            values |= {"keeper": this_worker.pid, "keeper_start": this_worker.start}
        job_rows.update_row(db, folder, values)
        return row.id, child


def enter(store: Store, job: str) -> None:
    """The child's first act: write itself into the row, where its worker was killed before it
    could. The work does not wait for a database that cannot be used.
    """
    with suppress(IndexUnavailable, OSError), store.db(patience=ENTER_PATIENCE) as db:
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
    parser.add_argument("--lock", type=int, help="descriptor of the worker's lock")
    arguments = parser.parse_args()
    work(Store(arguments.workspace), arguments.device, arguments.lock)


if __name__ == "__main__":
    main()
