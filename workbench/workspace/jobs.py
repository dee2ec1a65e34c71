"""Jobs: long work in processes that outlive whoever started them.

A job is a row in the workspace's database and a folder (`job_files` lists what is in it). Its state
is derived from its process (`job_state`); the files that it reads are copied (`job_inputs`) and the
paths that it writes are reserved (`job_outputs`) when it is queued. `worker.py` runs the queue.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..records import BadInput, State, jsonfile, write_atomic, yamlfile
from ..records.files import sweep_drafts
from ..records.record import Record
from ..specs import VerbSpec
from . import job_files, job_inputs, job_outputs, job_rows
from .cluster import following
from .cluster.engine_files import joint_progress, read_start, shard_folders
from .cluster.settings import ClusterSettings
from .database import IndexUnavailable
from .devices import chosen_device
from .job_files import Cursor, MetricsRow
from .job_rows import JobRow
from .job_state import ACTIVE, RESUMABLE, derive
from .processes import ensure, is_held, lock_path, log_path, terminate
from .store import Store

__all__ = [
    "ACTIVE",
    "Cursor",
    "Job",
    "cancel",
    "create",
    "list_jobs",
    "log_tail",
    "mark_stopped",
    "metrics",
    "move",
    "of_folder",
    "pause",
    "resume",
    "show",
    "submit",
    "wake",
]


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


# --- looking --------------------------------------------------------------------------------------


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
    lines = [line for line in job_files.tail(log_path(workspace, "worker", device)) if line.strip()]
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
        eta = progress.eta
    place = queue.places.get(row.id)
    if state == "queued" and not error and row.engine is None:
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
    found = job_files.tail(folder / "log.txt", lines)
    for shard in shard_folders(folder):
        found += [f"--- task {shard.name}", *job_files.tail(shard / "log.txt", lines)]
    return "\n".join(found)


def metrics(store: Store, job: str, after: Cursor | None = None) -> tuple[list[MetricsRow], Cursor]:
    """The rows of a job's metrics behind the cursor, and the next cursor; without one, all rows.

    A resumed job repeats some steps: drop the rows you hold from the first new row's step on.
    """
    return job_files.read_metrics(job_rows.folder_of(store.workspace, job), after)


# --- making ---------------------------------------------------------------------------------------


def submit(
    store: Store,
    verb: str,
    spec: VerbSpec | Mapping[str, Any],
    *,
    device: str = "",
    title: str = "",
    start: bool = True,
    on: ClusterSettings | None = None,
) -> Job:
    """Queue a job and see to it that a worker runs; `on`: send it to that engine instead.

    The spec is checked first. Small input files are copied into the job's folder, so that an edit
    after the submit changes nothing. Relative paths are those of this process. `start=False` only
    queues.

    Raises BadInput for an unknown verb or key, a wrong value, a missing input file, an output that
    another unfinished job writes, and where the engine does not take it.
    """
    typed = job_inputs.typed_spec(verb, spec).located(Path.cwd())
    typed = job_inputs.with_loaded_plugins(typed)
    if on is not None:
        following.client_of(on.engine).check()
        there = "cpu" if device == "cpu" or not on.gpus else "cuda"
        return send(store, create(store, verb, typed, there, title, on=on))
    job = create(store, verb, typed, chosen_device(device), title)
    if start:
        ensure_worker(store.workspace, job.device)
    return job


class ChainPlace(NamedTuple):
    """A job's place in a chain. chain: its id, empty for the first link, which makes it. follows:
    the link before, empty for the first. later: files that the links before will write.
    """

    chain: str = ""
    follows: str = ""
    later: Sequence[str] = ()


def check_outputs(store: Store, spec: VerbSpec, but: str = "") -> list[str]:
    """The paths that a spec writes. Raises BadInput where an unfinished job but that one writes one
    of them.
    """
    paths = job_outputs.output_paths(spec)
    resume = bool(getattr(spec, "resume", False))
    job_outputs.check_free(all_rows(store), store.workspace, paths, but, resume=resume)
    return paths


def create(
    store: Store,
    verb: str,
    spec: VerbSpec,
    device: str,
    title: str = "",
    *,
    state: State = "queued",
    on: ClusterSettings | None = None,
    link: ChainPlace | None = None,
) -> Job:
    """Make a job's row and folder. With state "running" the job is this process. on: the engine
    that is to run it; it has still to be sent. link: its place in a chain.

    The folder is filled under a temporary name before the transaction that numbers the job: a copy
    of a large file must not hold up every other writer.
    """
    sweep_drafts(store.workspace / "jobs", "new-*")
    mark = secrets.token_hex(4)
    draft = store.workspace / "jobs" / f".new-{mark}.{os.getpid()}"
    try:
        draft.mkdir()
        for name in ("inputs", "samples", "checkpoints"):
            (draft / name).mkdir()
        if on is not None:
            following.write_settings(draft, on)
        copies = job_inputs.copy_inputs(spec, draft, but=link.later if link else [])
        outputs = job_outputs.output_paths(spec)
        with store.db() as db:
            resume = bool(getattr(spec, "resume", False))
            rows = job_rows.read_rows(db)
            job_outputs.check_free(rows, store.workspace, outputs, resume=resume)
            number = job_rows.next_number(db, store.workspace)
            folder = job_rows.folder_of(store.workspace, f"{number:04d}-{verb}")
            draft.rename(folder)
            copied = {field: str(folder / path) for field, path in copies.items()}
            data = spec.model_copy(update=copied).to_data()
            row = JobRow(
                id=folder.name,
                number=number,
                kind=verb,
                title=title or verb,
                device=device,
                spec=json.dumps(data),
                state="running" if on else state,
                rank=float(number),
                attempt=0,
                created=time.time(),
                outputs=json.dumps(outputs),
                workspace=str(store.workspace),
                engine=on.engine if on else None,
                chain=(link.chain or f"c{number}") if link else None,
                follows=(link.follows or None) if link else None,
            )
            job_rows.insert_row(db, folder, row)
            if state == "running":
                job_rows.update_row(db, folder, job_rows.started_columns(row))
            spec_file = {"kind": verb, "device": device, **data}
            write_atomic(folder / "spec.yaml", yamlfile.dump(spec_file))
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return show(store, folder.name)


def send(store: Store, job: Job) -> Job:
    """Send a job to its engine. Where the engine refuses it, the job has failed."""
    [row] = [row for row in all_rows(store) if row.id == job.id]
    try:
        number = following.send(row, job.folder)
    except BadInput as error:
        failed = {"state": "failed", "error": str(error), "ended": time.time()}
        update(store, job.id, lambda db, row, state: failed)
        raise
    return update(store, job.id, lambda db, row, state: {"engine_id": number})


# --- changing -------------------------------------------------------------------------------------


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
        [row] = [row for row in all_rows(store) if row.id == known.id]
        stop_process(known.folder, row, how)
    try:
        result = update(store, known.id, change)
    except (IndexUnavailable, OSError):
        if not is_running:
            raise
        result = show(store, known.id)
    wake(store)  # the worker uses force where the job does not listen
    return result


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
        cleared = dict.fromkeys(("stop", "stop_at", "pid", "start", "boot", "ended", "error"))
        if row.engine is None:
            return {"state": "queued", **cleared}
        following.clear(folder)
        return {"state": "running", "engine_id": None, **cleared}

    known = show(store, job)
    if known.engine:
        following.client_of(known.engine).check()
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
