"""Jobs: long work in processes that outlive whoever started them (DESIGN section 7). Never imports
torch.

A job is a row in the workspace's database, mirrored in job.json, and a folder:

    jobs/<id>/ job.json spec.yaml inputs/ log.txt progress.json metrics.jsonl samples/ checkpoints/
    stop outcome.json result.json

"Running" is derived from the process, never believed from the row: see `derive`. `worker.py` runs
the queue.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..records import BadInput, Record, State, write_atomic, yamlfile
from .job_files import read_metrics
from .processes import alive, default_device, ensure, identity, signal_group
from .store import JOB_COLUMNS, Store

# spec keys: files to copy when a job is submitted
SNAPSHOT = ("plan", "spec", "sensitivity", "prompts", "suite", "data")
ACTIVE = ("queued", "running", "stopping")


class Job(Record):
    """A job as it is now. `error` is one reason line and, for failed or lost, the log's last lines."""

    id: str
    kind: str
    title: str
    device: str
    state: State
    step: int = 0
    total: int = 0
    message: str = ""
    eta: float | None = None
    error: str = ""
    created: float
    started: float | None = None
    ended: float | None = None
    attempt: int = 0
    place: int | None = None  # in the queue, 0 is next
    folder: Path
    spec: dict[str, Any]

    @property
    def result(self) -> Any:
        """What the verb returned, or None while it has not."""
        return read_json(self.folder / "result.json")

    @property
    def resumable(self) -> bool:
        return self.state in ("paused", "failed", "cancelled", "lost")


def read_json(path: Path) -> Any:
    """A small JSON file, or None where it is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def folder_of(store: Store, job: str) -> Path:
    return store.workspace / "jobs" / job


# --- what state a job is in -----------------------------------------------------------------------


def derive(row: sqlite3.Row, folder: Path) -> tuple[State, str]:
    """(state, error). A row that says running is asked for its process; without one, the folder
    tells how it ended.
    """
    if row["state"] != "running":
        return row["state"], row["error"] or ""
    if alive(row["pid"], row["start"], row["boot"]):
        return ("stopping" if row["stop"] else "running"), ""
    state, error = verdict(folder, row["stop"], None)
    if state == "lost" and alive(row["keeper"], row["keeper_start"], row["boot"]):
        return "stopping", ""  # its worker saw it end and is about to write down how
    return state, error


def verdict(folder: Path, stop: str | None, code: int | None) -> tuple[State, str]:
    """How a job whose process is gone ended. `code` is its exit status where someone saw it.

    Done takes both: the child's own word as its last act, and result.json. No word, and nobody saw
    it end: lost.
    """
    outcome = read_json(folder / "outcome.json") or {}
    said = outcome.get("state")
    if said == "done" and code in (None, 0) and (folder / "result.json").exists():
        return "done", ""
    if said == "failed":
        return "failed", with_tail(
            outcome.get("error", "failed"), folder, outcome.get("expected", False)
        )
    # told to stop by us, or by the machine shutting down: its checkpoint is there
    if said == "stopped" or stop:
        return ("cancelled" if stop == "cancel" else "paused"), ""
    if code is None:
        return "lost", with_tail(
            "the process vanished without a word (killed, out of memory, or the machine restarted)",
            folder,
        )
    how = (
        f"killed by {signal.Signals(-code).name}"
        if code < 0
        else f"exit code {code} without a result"
    )
    return "failed", with_tail(how, folder)


def with_tail(reason: str, folder: Path, expected: bool = False) -> str:
    """The reason and, unless it says all, the log's last lines."""
    lines = [] if expected else tail(folder / "log.txt", 12)
    return "\n".join([reason, *lines])


def tail(path: Path, lines: int = 50, limit: int = 256 * 1024) -> list[str]:
    """The last lines of a text file, reading at most `limit` bytes of it."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - limit))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


# --- reading --------------------------------------------------------------------------------------


def list_jobs(store: Store, *, active: bool = False) -> list[Job]:
    """All jobs, newest first; only queued, running and stopping ones with `active`."""
    with store.db(write=False) as db:
        rows = db.execute("SELECT * FROM job ORDER BY number DESC").fetchall()
    queue = queue_of(rows)
    jobs = [job for row in rows if (job := build(store, row, queue))]
    return [job for job in jobs if job.state in ACTIVE] if active else jobs


def show(store: Store, job: str) -> Job:
    """One job by its id, or by its number alone. Raises BadInput where there is none."""
    with store.db(write=False) as db:
        rows = db.execute("SELECT * FROM job").fetchall()
    row = next((r for r in rows if job in (r["id"], str(r["number"]))), None)
    found = build(store, row, queue_of(rows)) if row else None
    if found is None:
        raise BadInput(
            f"job {job!r} is not in {store.workspace}",
            "the id of a job there",
            "see `workbench jobs list`",
        )
    return found


def queue_of(rows: list[sqlite3.Row]) -> list[str]:
    return [
        r["id"]
        for r in sorted(
            (r for r in rows if r["state"] == "queued"), key=lambda r: (r["rank"], r["number"])
        )
    ]


def build(store: Store, row: sqlite3.Row, queue: list[str]) -> Job | None:
    """A Job from its row and folder; None where someone deleted the folder."""
    folder = folder_of(store, row["id"])
    if not folder.is_dir():
        return None
    state, error = derive(row, folder)
    progress = read_json(folder / "progress.json") or {}
    ended = row["ended"]
    if ended is None and row["state"] == "running" and state not in ACTIVE:  # nobody wrote it down
        ended = max(
            (p.stat().st_mtime for p in folder.iterdir() if p.is_file()), default=row["started"]
        )
    return Job(
        id=row["id"],
        kind=row["kind"],
        title=row["title"],
        device=row["device"],
        state=state,
        error=error,
        step=progress.get("step", 0),
        total=progress.get("total", 0),
        message=progress.get("message", ""),
        eta=progress.get("eta") if state == "running" else None,
        created=row["created"],
        started=row["started"],
        ended=ended,
        attempt=row["attempt"],
        place=queue.index(row["id"]) if row["id"] in queue else None,
        folder=folder,
        spec=json.loads(row["spec"]),
    )


def log_tail(store: Store, job: str, lines: int = 50) -> str:
    """The last lines of a job's log."""
    return "\n".join(tail(show(store, job).folder / "log.txt", lines))


def metrics(store: Store, job: str, after: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Rows of metrics.jsonl behind the cursor `after`, and the next cursor (0 asks for all).

    When a resumed job has cut the file back, all rows come again: drop what you hold from the first
    row's step on.
    """
    return read_metrics(folder_of(store, job) / "metrics.jsonl", after)


# --- changing -------------------------------------------------------------------------------------


def submit(
    store: Store,
    kind: str,
    spec: dict[str, Any],
    *,
    device: str = "",
    title: str = "",
    start: bool = True,
) -> Job:
    """Queue a job and see to it that a worker runs.

    Input files named in the spec are copied into the job's folder, so that an edit after the submit
    changes nothing. Raises BadInput where such a file is missing. `start=False` only queues
    (tests).
    """
    job = create(store, kind, spec, device or default_device(), title, state="queued")
    if start:
        ensure_worker(store.workspace, job.device)
    return job


def create(
    store: Store,
    kind: str,
    spec: dict[str, Any],
    device: str,
    title: str = "",
    *,
    state: State = "queued",
) -> Job:
    """Make a job's row and folder. With state "running" the job is this process (a verb in the
    foreground).
    """
    files = {
        key: file
        for key in SNAPSHOT
        if isinstance(spec.get(key), str) and (file := input_file(key, spec[key]))
    }
    with store.db() as db:
        number = 1 + max(
            [
                db.execute("SELECT max(number) FROM job").fetchone()[0] or 0,
                *(
                    int(p.name[:4])
                    for p in (store.workspace / "jobs").glob("[0-9][0-9][0-9][0-9]-*")
                ),
            ]
        )
        folder = folder_of(store, f"{number:04d}-{kind}")
        for sub in ("inputs", "samples", "checkpoints"):
            (folder / sub).mkdir(parents=True)
        spec = {
            **spec,
            **{key: str(shutil.copy2(file, folder / "inputs")) for key, file in files.items()},
        }
        row: dict[str, Any] = dict.fromkeys(JOB_COLUMNS)
        row |= {
            "id": folder.name,
            "number": number,
            "kind": kind,
            "title": title or kind,
            "device": device,
            "spec": json.dumps(spec),
            "state": state,
            "rank": float(number),
            "attempt": 0,
            "created": time.time(),
        }
        if state == "running":
            row |= {**identity(), "started": time.time(), "attempt": 1}
        db.execute(
            f"INSERT INTO job ({', '.join(row)}) VALUES ({', '.join(':' + c for c in row)})", row
        )
        write_atomic(folder / "spec.yaml", yamlfile.dump({"kind": kind, "device": device, **spec}))
        mirror(db, folder)
    return show(store, folder.name)


def input_file(key: str, value: str) -> Path | None:
    """The file a spec's value names, None where it is a folder or a name of something bundled."""
    path = Path(value)
    if path.is_file():
        return path
    if path.is_absolute() and not path.exists():
        raise BadInput(f"{key} {value} does not exist", "a readable file", "check the path")
    return None


def mirror(db: sqlite3.Connection, folder: Path) -> None:
    """Write the row to job.json, from which it comes back when the database is deleted."""
    row = dict(db.execute("SELECT * FROM job WHERE id = ?", (folder.name,)).fetchone())
    write_atomic(
        folder / "job.json", json.dumps({**row, "spec": json.loads(row["spec"])}, indent=1) + "\n"
    )


def update(store: Store, job: str, change: Callable[[sqlite3.Row, State], dict[str, Any]]) -> Job:
    """One change of a row in one transaction: `change` sees the row and its derived state and
    returns the new values.
    """
    known = show(store, job)
    with store.db() as db:
        row = db.execute("SELECT * FROM job WHERE id = ?", (known.id,)).fetchone()
        values = change(row, derive(row, known.folder)[0])
        if values:
            write_row(db, known.folder, values)
    return show(store, known.id)


def write_row(db: sqlite3.Connection, folder: Path, values: dict[str, Any]) -> None:
    sets = ", ".join(f"{column} = :{column}" for column in values)
    db.execute(f"UPDATE job SET {sets} WHERE id = :id_", {**values, "id_": folder.name})
    mirror(db, folder)


def cancel(store: Store, job: str) -> Job:
    """Stop a job for good: a queued one at once, a running one after its checkpoint, by force after
    a grace time.
    """
    return _stop(store, job, "cancel")


def pause(store: Store, job: str) -> Job:
    """Stop a job with a checkpoint and free the device; `resume` continues it."""
    return _stop(store, job, "pause")


def finish(folder: Path, result: Any) -> None:
    """Write a job's result."""
    write_atomic(folder / "result.json", json.dumps(result, indent=1) + "\n")


def leave(folder: Path, state: str, reason: str = "", expected: bool = True) -> None:
    """A job's last word on how it ended ("done", "stopped", "failed"). Where the reason says all,
    no log is shown with it.
    """
    write_atomic(
        folder / "outcome.json",
        json.dumps({"state": state, "error": reason, "expected": expected}) + "\n",
    )


def _stop(store: Store, job: str, how: str) -> Job:
    ended: State = "cancelled" if how == "cancel" else "paused"

    def change(row: sqlite3.Row, state: State) -> dict[str, Any]:
        if state in ("queued", "paused"):
            return {"state": ended, "ended": time.time()}
        if state not in ("running", "stopping"):
            raise BadInput(
                f"job {row['id']} is {state}", "a queued or running job", "nothing is left to stop"
            )
        write_atomic(folder_of(store, row["id"]) / "stop", how)
        signal_group(row["pid"], row["start"], row["boot"], signal.SIGTERM, group=False)
        return {"stop": how, "stop_at": row["stop_at"] or time.time()}

    result = update(store, job, change)
    wake(store)  # it uses force where the child does not listen
    return result


def resume(store: Store, job: str, *, start: bool = True) -> Job:
    """Queue a paused, failed, cancelled or lost job again; it goes on from its last checkpoint, in
    the same folder.
    """

    def change(row: sqlite3.Row, state: State) -> dict[str, Any]:
        if state not in ("paused", "failed", "cancelled", "lost"):
            raise BadInput(
                f"job {row['id']} is {state}",
                "a paused, failed, cancelled or lost job",
                "resume it when it has ended",
            )
        (folder_of(store, row["id"]) / "stop").unlink(missing_ok=True)
        return {
            "state": "queued",
            "stop": None,
            "stop_at": None,
            "pid": None,
            "ended": None,
            "error": None,
        }

    result = update(store, job, change)
    if start:
        ensure_worker(store.workspace, result.device)
    return result


def mark_stopped(store: Store, job: str) -> Job:
    """Call a lost or failed job cancelled, so that nobody is asked about it again."""

    def change(row: sqlite3.Row, state: State) -> dict[str, Any]:
        if state not in ("lost", "failed", "paused"):
            raise BadInput(
                f"job {row['id']} is {state}", "a lost, failed or paused job", "cancel it instead"
            )
        return {"state": "cancelled", "ended": row["ended"] or time.time()}

    return update(store, job, change)


def move(store: Store, job: str, place: int) -> Job:
    """Put a queued job at a place of the queue, 0 first; a place beyond the end means last."""
    known = show(store, job)
    with store.db() as db:
        queue = queue_of(db.execute("SELECT * FROM job").fetchall())
        if known.id not in queue:
            raise BadInput(
                f"job {known.id} is {known.state}", "a queued job", "only queued jobs can move"
            )
        queue.remove(known.id)
        queue.insert(max(0, place), known.id)
        for rank, name in enumerate(queue):
            write_row(db, folder_of(store, name), {"rank": float(rank)})
    return show(store, known.id)


def ensure_worker(workspace: Path, device: str) -> bool:
    """Start the device's worker unless it runs. Returns whether one was started."""
    return ensure("workbench.workspace.worker", "worker", workspace, device)


def wake(store: Store) -> None:
    """Start the workers that are missing: of devices with queued jobs, or jobs told to stop. Cheap;
    call it when you look.
    """
    with store.db(write=False) as db:
        rows = db.execute(
            "SELECT DISTINCT device FROM job WHERE state = 'queued' OR (state = "
            "'running' AND stop IS NOT NULL)"
        ).fetchall()
    for row in rows:
        with suppress(OSError):
            ensure_worker(store.workspace, row["device"])
