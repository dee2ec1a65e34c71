"""Jobs as they are now: listed, one by one, their logs and metrics.

A job's state is derived from its process and its folder (`job_state`); its row alone is not trusted.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..records import BadInput, State, jsonfile
from ..records.record import Record
from . import job_files, job_rows
from .cluster.engine_files import joint_progress, read_start, shard_folders
from .database import IndexUnavailable
from .job_files import Cursor, MetricsRow
from .job_log import tail
from .job_rows import JobRow
from .job_state import ACTIVE, RESUMABLE, derive
from .processes import is_held, lock_path, log_path
from .store import Store

SILENCE = 300.0  # seconds; loading and saving a large model take some time, too


class Job(Record):
    """A job as it is now.

    error: one line of reason and, for failed and lost jobs, the log's last lines. place: in the
    queue, 0 is next. spec: what its verb was given, as plain data. eta: seconds left. heard: when
    its process last said how far it is, or started. engine: what runs it on other machines, empty
    for this one; engine_id: its number there. chain: what it was queued with, empty for a job of its
    own; follows: the job that must be done before.
    """

    id: str
    kind: str
    title: str
    device: str
    state: State
    step: int = 0
    total: int = 0
    message: str = ""
    eta: float | None = None
    heard: float | None = None
    error: str = ""
    created: float
    started: float | None = None
    ended: float | None = None
    attempt: int = 0
    place: int | None = None
    folder: Path
    spec: dict[str, Any]
    engine: str = ""
    engine_id: str = ""
    chain: str = ""
    follows: str = ""

    @property
    def result(self) -> Any:
        """What the verb returned, or None while it has not."""
        return job_files.read_json(self.folder / "result.json")

    @property
    def silence(self) -> str:
        """ "no progress for 7 minutes" where a running job has said nothing for five; else empty."""
        if self.heard is None or self.state not in ("running", "stopping"):
            return ""
        seconds = time.time() - self.heard
        if seconds < SILENCE:
            return ""
        return f"no progress for {int(seconds / 60)} minutes"

    @property
    def resumable(self) -> bool:
        return self.state in RESUMABLE


def list_jobs(store: Store, *, active: bool = False) -> list[Job]:
    """All jobs, newest first; only queued, running and stopping ones with `active`.

    Where the database cannot be used the folders are read. A job whose record is damaged is listed
    as damaged.
    """
    rows = all_rows(store)
    queue = Queue(store.workspace, rows)
    jobs = [job_of(store, row, queue) for row in rows]
    if active:
        return [job for job in jobs if job.state in ACTIVE]
    return jobs


def show(store: Store, job: str) -> Job:
    """One job by its id, or by its number alone. Raises BadInput where there is none."""
    rows = all_rows(store)
    for row in rows:
        if job in (row.id, str(row.number)):
            return job_of(store, row, Queue(store.workspace, rows))
    raise BadInput(
        f"job {job!r} is not in {store.workspace}",
        "the id of a job there",
        "see `workbench jobs list`",
    )


def of_folder(folder: Path) -> Job:
    """A job by its folder alone, for its own process. Raises BadInput where it is damaged."""
    store_path = folder.parents[1]
    row = job_rows.read_mirror(folder)
    if row is None or row.state == "damaged":
        reason = row.error if row else "it has no job.json"
        raise BadInput(f"{folder}: {reason}", "the folder of a job", "queue a new job")
    return sound_job(folder, row, Queue(store_path, []))


def all_rows(store: Store) -> list[JobRow]:
    """The rows of all jobs that have a folder, newest first; of damaged ones too.

    People delete jobs by deleting their folders.
    """
    folders = job_folders(store.workspace)
    try:
        with store.db(write=False) as db:
            rows = job_rows.read_rows(db)
    except (IndexUnavailable, OSError):
        return job_rows.rows_of_folders(store.workspace)
    listed = {row.id for row in rows}
    rows = [row for row in rows if row.id in folders]
    for name in folders - listed:  # one that is just being made is none of ours
        row = job_rows.read_mirror(job_rows.folder_of(store.workspace, name))
        if row is not None and row.state == "damaged":
            rows.append(row)
    return sorted(rows, key=lambda row: row.number, reverse=True)


def job_folders(workspace: Path) -> set[str]:
    """The ids of the jobs that have a folder."""
    with suppress(OSError), os.scandir(workspace / "jobs") as entries:
        return {entry.name for entry in entries if entry.name[0] != "." and entry.is_dir()}
    return set()


class Queue:
    """The queued jobs in order, and why the workers of their devices do not start."""

    def __init__(self, workspace: Path, rows: list[JobRow]) -> None:
        self.workspace = workspace
        self.places = {job: place for place, job in enumerate(queue_of(rows))}
        self.faults: dict[str, str] = {}
        self.rows = {row.id: row for row in rows}

    def hold(self, row: JobRow) -> str:
        """Why a job of a chain does not begin; empty for others."""
        if row.follows is None:
            return ""
        before = self.rows.get(row.follows)
        if before is None:
            return f"held: it follows {row.follows}, which is gone"
        state, _ = derive(before, job_rows.folder_of(self.workspace, before.id))
        if state == "done":
            return ""
        if state in ACTIVE:
            return f"waits for {before.id}"
        return f"held: it follows {before.id}, which is {state}"

    def fault(self, device: str) -> str:
        """The last line of a worker that left without taking its lock; empty where all is well."""
        if device not in self.faults:
            self.faults[device] = worker_fault(self.workspace, device)
        return self.faults[device]


def worker_fault(workspace: Path, device: str) -> str:
    """The last line of the log of a device's worker that has left; a sound one prints nothing."""
    lines = [line for line in tail(log_path(workspace, "worker", device)) if line.strip()]
    if not lines:
        return ""
    with suppress(OSError):
        if is_held(lock_path(workspace, "worker", device)):
            return ""
    return f"the worker of {device} does not run: {lines[-1].strip()}"


def queue_of(rows: list[JobRow]) -> list[str]:
    """The ids of the queued jobs, the next one first."""
    queued = [row for row in rows if row.state == "queued"]
    return [row.id for row in sorted(queued, key=lambda row: (row.rank, row.number))]


def job_of(store: Store, row: JobRow, queue: Queue) -> Job:
    """A job from its row and its folder; a damaged one where they do not fit."""
    folder = job_rows.folder_of(store.workspace, row.id)
    try:
        return sound_job(folder, row, queue)
    except (ValueError, TypeError) as error:  # of a value that no version of ours writes
        line = " ".join(str(error).split())[:200]
        return sound_job(folder, job_rows.damaged_row(row.id, line), queue)


def sound_job(folder: Path, row: JobRow, queue: Queue) -> Job:
    state, error = derive(row, folder)
    progress = joint_progress(folder)
    begun = read_start(folder) if row.engine else None
    started = begun.time if begun else row.started
    eta = None
    if state == "running":
        eta = progress.left(started or 0.0)
    place = queue.places.get(row.id)
    if state == "queued" and row.engine is not None:
        error = queue.hold(row) or error
    elif state == "queued" and not error:
        error = queue.hold(row) or queue.fault(row.device)
    ended = row.ended
    if ended is None and row.state == "running" and state not in ACTIVE:  # nobody wrote it down
        ended = last_change(folder) or row.started
    return Job(
        id=row.id,
        kind=row.kind,
        title=row.title,
        device=row.device,
        state=state,
        step=progress.step,
        total=progress.total,
        message=progress.message,
        eta=eta,
        heard=max(progress.time, started or 0.0) or None,
        error=error,
        created=row.created,
        started=started,
        ended=ended,
        attempt=begun.attempt if begun else row.attempt,
        place=place,
        folder=folder,
        spec=jsonfile.parse(row.spec),
        engine=row.engine or "",
        engine_id=row.engine_id or "",
        chain=row.chain or "",
        follows=row.follows or "",
    )


def last_change(folder: Path) -> float | None:
    """When a file of the folder was last written, in seconds since the epoch."""
    times = [path.stat().st_mtime for path in folder.iterdir() if path.is_file()]
    return max(times, default=None)


def log_tail(store: Store, job: str, lines: int = 50) -> str:
    """The last lines of a job's log; of an array the last ones of each task's."""
    folder = show(store, job).folder
    found = tail(folder / "log.txt", lines)
    for shard in shard_folders(folder):
        found += [f"--- task {shard.name}", *tail(shard / "log.txt", lines)]
    return "\n".join(found)


def metrics(
    store: Store, job: str, after: Cursor | None = None, most: int | None = None
) -> tuple[list[MetricsRow], Cursor]:
    """The rows of a job's metrics behind the cursor, and the next cursor; without one, all rows.

    A resumed job repeats some steps: drop the rows you hold from the first new row's step on. most:
    of a longer history only some rows, as `read_metrics` says.
    """
    return job_files.read_metrics(job_rows.folder_of(store.workspace, job), after, most)
