"""The rows of the table `job`, and their mirror job.json in each job's folder."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..records import State, write_atomic
from .processes import ProcessIdentity, identity


@dataclass(frozen=True)
class JobRow:
    """One row of the table `job`.

    number: counts jobs. rank: its place in the queue, lowest first. spec: JSON. stop: "pause" or
    "cancel" once that was asked for. pid, start, boot: the process that runs it. keeper,
    keeper_start: the worker that waits for that process. outputs: JSON, the paths that it writes.
    """

    id: str
    number: int
    kind: str
    title: str
    device: str
    spec: str
    state: State
    rank: float
    attempt: int
    created: float
    stop: str | None = None
    stop_at: float | None = None
    pid: int | None = None
    start: float | None = None
    boot: float | str | None = None
    keeper: int | None = None
    keeper_start: float | None = None
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    outputs: str | None = None

    @property
    def process(self) -> ProcessIdentity | None:
        """The process that runs the job, None where there is none."""
        return process_of(self.pid, self.start, self.boot)

    @property
    def keeper_process(self) -> ProcessIdentity | None:
        """The worker that waits for the job's process."""
        return process_of(self.keeper, self.keeper_start, self.boot)

    @property
    def output_paths(self) -> list[str]:
        paths: list[str] = json.loads(self.outputs or "[]")
        return paths


COLUMNS = tuple(field.name for field in fields(JobRow))
INTO_JOB = f"INTO job ({', '.join(COLUMNS)}) VALUES (:{', :'.join(COLUMNS)})"


def process_of(
    pid: int | None, start: float | None, boot: float | str | None
) -> ProcessIdentity | None:
    """A process from its columns; rows of earlier versions name the boot by a random id."""
    if pid is None or start is None or boot is None:
        return None
    try:
        return ProcessIdentity(pid, float(start), float(boot))
    except ValueError:
        return None


def process_columns(pid: int | None = None) -> dict[str, Any]:
    """The columns that say which process runs a job, by default this one."""
    process = identity(pid)
    if process is None:  # it has ended already
        return {"pid": pid, "start": None, "boot": None}
    return asdict(process)


def started_columns(row: JobRow, pid: int | None = None) -> dict[str, Any]:
    """The columns of a job whose next attempt begins in the process `pid`, by default this one."""
    return {
        "state": "running",
        "started": time.time(),
        "ended": None,
        "attempt": row.attempt + 1,
        **process_columns(pid),
    }


def folder_of(workspace: Path, job: str) -> Path:
    return workspace / "jobs" / job


def read_row(db: sqlite3.Connection, job: str) -> JobRow | None:
    """The row of a job by its id."""
    return one(db.execute("SELECT * FROM job WHERE id = ?", (job,)))


def read_rows(db: sqlite3.Connection) -> list[JobRow]:
    """All rows, newest first."""
    cursor = db.execute("SELECT * FROM job ORDER BY number DESC")
    return [JobRow(**row) for row in cursor.fetchall()]


def next_in_queue(db: sqlite3.Connection, device: str) -> JobRow | None:
    """The queued job that the device runs next."""
    query = "SELECT * FROM job WHERE state = 'queued' AND device = ? ORDER BY rank, number LIMIT 1"
    return one(db.execute(query, (device,)))


def running_rows(db: sqlite3.Connection, device: str) -> list[JobRow]:
    """The jobs of a device that are running, as far as their rows say."""
    cursor = db.execute("SELECT * FROM job WHERE state = 'running' AND device = ?", (device,))
    return [JobRow(**row) for row in cursor.fetchall()]


def one(cursor: sqlite3.Cursor) -> JobRow | None:
    row = cursor.fetchone()
    if row is None:
        return None
    return JobRow(**row)


def insert_row(db: sqlite3.Connection, folder: Path, row: JobRow) -> None:
    db.execute(f"INSERT {INTO_JOB}", asdict(row))
    mirror(db, folder)


def update_row(db: sqlite3.Connection, folder: Path, values: dict[str, Any]) -> None:
    """Change columns of a job's row, and job.json with it."""
    assignments = ", ".join(f"{column} = :{column}" for column in values)
    db.execute(
        f"UPDATE job SET {assignments} WHERE id = :job_id", {**values, "job_id": folder.name}
    )
    mirror(db, folder)


def mirror(db: sqlite3.Connection, folder: Path) -> None:
    """Write the row to job.json, from which it comes back when the database is deleted."""
    row = read_row(db, folder.name)
    if row is not None:
        data = {**asdict(row), "spec": json.loads(row.spec)}
        write_atomic(folder / "job.json", json.dumps(data, indent=1) + "\n")


def next_number(db: sqlite3.Connection, workspace: Path) -> int:
    """One more than any job has: in the database, or among the folders of a deleted one."""
    numbers = [row.number for row in read_rows(db)]
    for folder in (workspace / "jobs").glob("[0-9][0-9][0-9][0-9]*-*"):
        digits = folder.name.partition("-")[0]
        if digits.isdecimal():
            numbers.append(int(digits))
    return 1 + max(numbers, default=0)


def import_rows(db: sqlite3.Connection, workspace: Path) -> None:
    """Take up the jobs whose folder is there and whose row is not."""
    for file in sorted((workspace / "jobs").glob("*/job.json")):
        # left out: a folder without a job, or one that is just being made
        with suppress(OSError, ValueError, KeyError, TypeError):
            data = json.loads(file.read_text(encoding="utf-8"))
            known = {name: value for name, value in data.items() if name in COLUMNS}
            known |= {"id": file.parent.name, "spec": json.dumps(data["spec"])}
            db.execute(f"INSERT OR IGNORE {INTO_JOB}", asdict(JobRow(**known)))
