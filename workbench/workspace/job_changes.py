"""Changing jobs: send, cancel, pause, resume, move; and seeing to it that their workers run."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..records import BadInput, State
from . import job_files, job_outputs, job_rows
from .cluster import following
from .database import IndexUnavailable
from .job_listing import Job, all_rows, queue_of, show
from .job_rows import JobRow
from .job_state import ACTIVE, RESUMABLE, derive
from .model_code import note_trust
from .processes import ensure, terminate
from .store import Store


def update(
    store: Store,
    job: str,
    change: Callable[[sqlite3.Connection, JobRow, State], dict[str, Any]],
) -> Job:
    """Change a job in one transaction: `change` sees the row and its derived state and returns the
    new values of columns.
    """
    known = show(store, job)
    with store.db() as db:
        row = job_rows.read_row(db, known.id)
        if row is not None:
            state, _ = derive(row, known.folder)
            values = change(db, row, state)
            if values:
                job_rows.update_row(db, known.folder, values)
    return show(store, known.id)


def send(store: Store, job: Job) -> Job:
    """Send a job to its engine, then those that follow it. One that follows a job which does not
    wait or run is sent with that one. Where the engine refuses a job, it has failed.
    """
    row = row_of(store, job.id)
    before = show(store, row.follows) if row.follows else None
    after = ""
    if before is not None and before.state != "done":
        after = before.engine_id
        if before.state not in ACTIVE or not after:
            return job  # held
    try:
        number = following.send(row, job.folder, after)
    except BadInput as error:
        failed = {"state": "failed", "error": str(error), "ended": time.time()}
        update(store, job.id, lambda db, row, state: failed)
        raise
    sent = update(store, job.id, lambda db, row, state: {"engine_id": number})
    for follower in followers(store, job.id):
        if follower.engine_id is None:
            send(store, show(store, follower.id))
        else:
            following.follow(follower, number)
    return sent


def followers(store: Store, job: str) -> list[JobRow]:
    """The jobs of engines that wait for a job."""
    waiting = []
    for row in all_rows(store):
        if row.follows == job and row.engine is not None:
            state, _ = derive(row, job_rows.folder_of(store.workspace, row.id))
            if state == "queued":
                waiting.append(row)
    return waiting


def cancel(store: Store, job: str) -> Job:
    """Stop a job for good: a queued one at once, a running one at its next checkpoint, by force
    after a grace time.
    """
    return _stop(store, job, "cancel", "cancelled")


def pause(store: Store, job: str) -> Job:
    """Stop a job with a checkpoint and free the device; `resume` continues it."""
    return _stop(store, job, "pause", "paused")


def _stop(store: Store, job: str, how: str, stopped: State) -> Job:
    known = show(store, job)
    if known.state not in ("queued", "paused", "running", "stopping"):
        raise BadInput(
            f"job {known.id} is {known.state}", "a queued or running job", "nothing is left to stop"
        )

    def change(db: sqlite3.Connection, row: JobRow, state: State) -> dict[str, Any]:
        if state in ("queued", "paused"):
            following.withdraw(row)
            return {"state": stopped, "ended": time.time()}
        if state not in ("running", "stopping"):  # it has ended meanwhile
            return {}
        stop_process(known.folder, row, how)
        return {"stop": how, "stop_at": row.stop_at or time.time()}

    is_running = known.state in ("running", "stopping")
    if is_running:  # its folder says it and its process hears it: the row comes after
        stop_process(known.folder, row_of(store, known.id), how)
    try:
        result = update(store, known.id, change)
    except (IndexUnavailable, OSError):
        if not is_running:
            raise
        result = show(store, known.id)
    wake(store)  # the worker uses force where the job does not listen
    return result


def row_of(store: Store, job: str) -> JobRow:
    """The row of a job, by its id."""
    [row] = [row for row in all_rows(store) if row.id == job]
    return row


def stop_process(folder: Path, row: JobRow, how: str) -> None:
    """Ask a job's process to stop, in its folder and by a signal."""
    job_files.request_stop(folder, how)
    terminate(row.process)


def resume(store: Store, job: str, *, start: bool = True) -> Job:
    """Queue a paused, failed, cancelled or lost job again, in the same folder; its verb continues
    from the last checkpoint.
    """

    def change(db: sqlite3.Connection, row: JobRow, state: State) -> dict[str, Any]:
        if state not in RESUMABLE:
            raise BadInput(
                f"job {row.id} is {state}",
                "a paused, failed, cancelled or lost job",
                "resume it when it has ended",
            )
        rows = job_rows.read_rows(db)
        job_outputs.check_free(rows, store.workspace, row.output_paths, but=row.id)
        folder = job_rows.folder_of(store.workspace, row.id)
        job_files.clear_end(folder)
        note_trust(folder)
        cleared = dict.fromkeys(("stop", "stop_at", "pid", "start", "boot", "ended", "error"))
        if row.engine is None:
            return {"state": "queued", **cleared}
        following.clear(folder)
        return {"state": "running", "engine_id": None, **cleared}

    known = show(store, job)
    if known.engine:
        following.client_of(known.engine).check()
        if known.state in RESUMABLE:
            following.wait_until_ended(row_of(store, known.id))
    result = update(store, job, change)
    if result.engine:
        return send(store, result)
    if start:
        ensure_worker(store.workspace, result.device)
    return result


def mark_stopped(store: Store, job: str) -> Job:
    """Mark a lost, failed or paused job as cancelled."""

    def change(db: sqlite3.Connection, row: JobRow, state: State) -> dict[str, Any]:
        if state not in ("lost", "failed", "paused"):
            raise BadInput(
                f"job {row.id} is {state}", "a lost, failed or paused job", "cancel it instead"
            )
        return {"state": "cancelled", "ended": row.ended or time.time()}

    return update(store, job, change)


def move(store: Store, job: str, place: int) -> Job:
    """Put a queued job at a place of the queue, 0 first; a place beyond the end means last."""
    known = show(store, job)
    with store.db() as db:
        queue = queue_of(job_rows.read_rows(db))
        if known.id not in queue:
            raise BadInput(
                f"job {known.id} is {known.state}", "a queued job", "only queued jobs can move"
            )
        queue.remove(known.id)
        queue.insert(max(0, place), known.id)
        for rank, name in enumerate(queue):
            folder = job_rows.folder_of(store.workspace, name)
            job_rows.update_row(db, folder, {"rank": float(rank)})
    return show(store, known.id)


# --- workers --------------------------------------------------------------------------------------


def ensure_worker(workspace: Path, device: str) -> bool:
    """Start the device's worker unless it runs. Returns whether one was started."""
    return ensure("workbench.workspace.worker", "worker", workspace, device)


def wake(store: Store) -> None:
    """Start the workers that are missing: of devices with queued jobs, or with jobs to be stopped.
    Ask the engines how their jobs are.

    Cheap; front ends call it whenever they look.
    """
    query = (
        "SELECT DISTINCT device FROM job WHERE engine IS NULL AND "
        f"({job_rows.READY} OR (state = 'running' AND stop IS NOT NULL))"
    )
    following.look(store)
    devices = []
    with suppress(IndexUnavailable, OSError), store.db(write=False) as db:
        devices = [row["device"] for row in db.execute(query)]
    for device in devices:
        with suppress(OSError):
            ensure_worker(store.workspace, device)
