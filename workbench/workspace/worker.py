"""The worker of one device: takes queued jobs in order, one at a time, and leaves when none comes.

    python -m workbench.workspace.worker --workspace DIR --device cpu

One worker per device (a lock); one job per device (a second lock, which the job inherits: a killed
worker's successor cannot start another job while it runs). It keeps no state that it could lose.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from . import jobs
from .processes import alive, identity, lock_path, signal_group, start_detached, try_lock
from .store import Store

TICK = 0.05


def seconds(name: str, default: float) -> float:
    return float(os.environ.get(name, default))


def work(store: Store, device: str) -> bool:
    """Serve the queue until it stays empty. Returns False where another worker does already."""
    lock = hold(store, device)
    while lock is not None:
        serve(store, device)
        os.close(lock)
        # A job may have come between our last look and the release, while its submitter saw the
        # lock held.
        if next_job(store, device) is None:
            return True
        lock = hold(store, device)
    return False


def hold(store: Store, device: str) -> int | None:
    """The worker's lock. Tries for a second: someone's probe may hold it for a moment."""
    for _ in range(20):
        lock = try_lock(lock_path(store.workspace, "worker", device))
        if lock is not None:
            return lock
        time.sleep(TICK)
    return None


def serve(store: Store, device: str) -> None:
    """Run queued jobs; return when there was none for $WORKBENCH_IDLE (5) seconds and no job is
    left to look after.
    """
    idle = time.monotonic()
    while time.monotonic() - idle < seconds("WORKBENCH_IDLE", 5):
        if look_after(store, device):
            idle = time.monotonic()
        waiting = next_job(store, device)
        device_lock = try_lock(lock_path(store.workspace, "device", device)) if waiting else None
        if device_lock is not None:
            try:
                run_next(store, device, device_lock)
            finally:
                os.close(device_lock)
        if waiting:
            idle = time.monotonic()
        time.sleep(TICK if waiting else 4 * TICK)


def next_job(store: Store, device: str) -> str | None:
    with store.db(write=False) as db:
        row = db.execute(
            "SELECT id FROM job WHERE state = 'queued' AND device = ? ORDER BY rank, "
            "number LIMIT 1",
            (device,),
        ).fetchone()
    return row["id"] if row else None


def look_after(store: Store, device: str) -> bool:
    """Write down how jobs ended whose worker was killed, and use force on those that do not stop.
    True where one still stops.
    """
    with store.db(write=False) as db:
        rows = db.execute(
            "SELECT * FROM job WHERE state = 'running' AND device = ?", (device,)
        ).fetchall()
    stopping = False
    for row in rows:
        if alive(row["pid"], row["start"], row["boot"]):
            insist(row)
            stopping |= row["stop"] is not None
        else:
            settle(store, row["id"], row["pid"], None)
    return stopping


def insist(row: sqlite3.Row) -> None:
    """SIGKILL to a job that was told to stop and has not, after a grace time: a pause may have much
    to save.
    """
    grace = seconds("WORKBENCH_GRACE", 600 if row["stop"] == "pause" else 60)
    if row["stop"] and time.time() - row["stop_at"] > grace:
        signal_group(row["pid"], row["start"], row["boot"], signal.SIGKILL)


def settle(store: Store, job: str, pid: int, code: int | None) -> None:
    """Write down how a job ended, unless it has been started again meanwhile."""
    folder = jobs.folder_of(store, job)
    with store.db() as db:
        row = db.execute("SELECT * FROM job WHERE id = ?", (job,)).fetchone()
        if row is not None and row["state"] == "running" and row["pid"] == pid and folder.is_dir():
            state, error = jobs.verdict(folder, row["stop"], code)
            jobs.write_row(
                db, folder, {"state": state, "error": error, "ended": time.time(), "pid": None}
            )


def run_next(store: Store, device: str, device_lock: int) -> None:
    """Start the next job as a detached child that inherits the device's lock, and wait for it."""
    started = claim(store, device, device_lock)
    if started is None:
        return
    job, child = started
    while True:
        try:
            code = child.wait(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            with store.db(write=False) as db:
                row = db.execute("SELECT * FROM job WHERE id = ?", (job,)).fetchone()
            if row is not None:
                insist(row)
    settle(store, job, child.pid, code)


def claim(
    store: Store, device: str, device_lock: int
) -> tuple[str, subprocess.Popen[bytes]] | None:
    """Take the next job and start it, in one transaction: no row says running without a process.

    Killed between the two, the child writes itself into the row (`enter`).
    """
    with store.db() as db:
        row = db.execute(
            "SELECT * FROM job WHERE state = 'queued' AND device = ? ORDER BY rank, number LIMIT 1",
            (device,),
        ).fetchone()
        if row is None:
            return None
        folder = jobs.folder_of(store, row["id"])
        if not folder.is_dir():  # thrown away by hand
            db.execute("DELETE FROM job WHERE id = ?", (row["id"],))
            return None
        for name in ("outcome.json", "result.json", "stop"):
            (folder / name).unlink(missing_ok=True)
        child = start_detached(
            ["-m", "workbench.tasks", str(folder)], folder / "log.txt", pass_fds=(device_lock,)
        )
        me = identity()
        jobs.write_row(
            db,
            folder,
            {
                "state": "running",
                "started": time.time(),
                "ended": None,
                "attempt": row["attempt"] + 1,
                **identity(child.pid),
                "keeper": me["pid"],
                "keeper_start": me["start"],
            },
        )
        return row["id"], child


def enter(store: Store, job: str) -> None:
    """The child's first act: where its worker was killed before it could write the row, write it."""
    with store.db() as db:
        row = db.execute("SELECT * FROM job WHERE id = ?", (job,)).fetchone()
        me = identity()
        if row is not None and (row["state"], row["pid"]) != ("running", me["pid"]):
            values = {
                "state": "running",
                "started": time.time(),
                "attempt": row["attempt"] + 1,
                "ended": None,
                **me,
            }
            jobs.write_row(db, jobs.folder_of(store, job), values)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workbench.workspace.worker",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--device", required=True)
    arguments = parser.parse_args()
    work(Store(arguments.workspace), arguments.device)


if __name__ == "__main__":
    main()
