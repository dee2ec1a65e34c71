"""The rows of the table `job`, and their mirror job.json in each job's folder."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..records import BadInput, State, jsonfile, write_atomic
from .processes import ProcessIdentity, identity


@dataclass(frozen=True)
class JobRow:
    """One row of the table `job`.

    number: counts jobs. rank: its place in the queue, lowest first. spec: JSON. stop: "pause" or
    "cancel" once that was asked for. pid, start, boot: the process that runs it. keeper,
    keeper_start: the worker that waits for that process. outputs: JSON, the paths that it writes.
    workspace: the workspace that the paths of spec and outputs are in. engine: what runs the job
    on other machines, None for this one; engine_id: its number there, None until it has one.
    chain: what it was queued with; follows: the job of it that must be done first.
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
    workspace: str | None = None
    engine: str | None = None
    engine_id: str | None = None
    chain: str | None = None
    follows: str | None = None

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
        paths: list[str] = jsonfile.parse(self.outputs or "[]")
        return paths


Row = TypeAdapter(JobRow)
COLUMNS = tuple(field.name for field in fields(JobRow))
READY = (
    "state = 'queued' AND (follows IS NULL OR EXISTS "
    "(SELECT 1 FROM job AS link WHERE link.id = job.follows AND link.state = 'done'))"
)
INTO_JOB = f"INTO job ({', '.join(COLUMNS)}) VALUES (:{', :'.join(COLUMNS)})"


def process_of(
    pid: int | None, start: float | None, boot: float | str | None
) -> ProcessIdentity | None:
    """A process from its columns; rows of earlier versions name the boot by a random id."""
    if pid is None or start is None or boot is None:
        return None
    try:
        return ProcessIdentity(pid, float(start), str(boot))
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
    return [parse_row(dict(row)) for row in cursor.fetchall()]


def next_in_queue(db: sqlite3.Connection, device: str) -> JobRow | None:
    """The queued job that the device runs next; one that follows another waits until that is done."""
    query = f"SELECT * FROM job WHERE {READY} AND device = ? ORDER BY rank, number LIMIT 1"
    return one(db.execute(query, (device,)))


def running_rows(db: sqlite3.Connection, device: str) -> list[JobRow]:
    """The jobs of a device of this machine that are running, as far as their rows say."""
    query = "SELECT * FROM job WHERE state = 'running' AND device = ? AND engine IS NULL"
    return [parse_row(dict(row)) for row in db.execute(query, (device,)).fetchall()]


def one(cursor: sqlite3.Cursor) -> JobRow | None:
    row = cursor.fetchone()
    if row is None:
        return None
    return parse_row(dict(row))


def parse_row(data: dict[str, Any]) -> JobRow:
    """A row from its columns; a damaged one keeps what can be shown of it, and says why."""
    known = {name: value for name, value in data.items() if name in COLUMNS}
    try:
        return Row.validate_python(known)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        return damaged_row(str(data.get("id", "")), f"{field} is {first['input']!r:.80}")


def damaged_row(job: str, reason: str) -> JobRow:
    """What stands for a job whose record cannot be read."""
    digits, _, kind = job.partition("-")
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 16 else 0
    error = f"its record is damaged: {reason}"
    return JobRow(job, number, kind, kind, "", "{}", "damaged", 0.0, 0, 0.0, error=error)


# --- job.json -------------------------------------------------------------------------------------


def read_mirror(folder: Path) -> JobRow | None:
    """A job's row from its job.json, None where there is no such file; its paths are those of the
    workspace that the folder is in now.
    """
    file = folder / "job.json"
    try:
        data = jsonfile.read(file, "job")
        return here(from_mirror(folder, data), folder.parents[1])
    except BadInput as error:
        if not file.exists():
            return None
        return damaged_row(folder.name, error.found)


def from_mirror(folder: Path, data: Any) -> JobRow:
    if not isinstance(data, dict) or not isinstance(data.get("spec"), dict):
        return damaged_row(folder.name, f"{folder / 'job.json'} has no spec")
    return parse_row({**data, "id": folder.name, "spec": json.dumps(data["spec"])})


def rows_of_folders(workspace: Path) -> list[JobRow]:
    """All rows by what the folders say, newest first."""
    rows = []
    for file in (workspace / "jobs").glob("*/job.json"):
        row = read_mirror(file.parent)
        if row is not None:
            rows.append(row)
    return sorted(rows, key=lambda row: row.number, reverse=True)


def here(row: JobRow, workspace: Path) -> JobRow:
    """The row with the paths of a workspace that has been moved."""
    old = row.workspace
    if old is None or old == str(workspace):
        return row
    spec = json.dumps(moved(jsonfile.parse(row.spec), old, str(workspace)))
    outputs = json.dumps(moved(row.output_paths, old, str(workspace)))
    return replace(row, spec=spec, outputs=outputs, workspace=str(workspace))


def moved(value: Any, old: str, new: str) -> Any:
    """Plain data in which paths below the folder `old` are below `new`."""
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    if isinstance(value, dict):
        return {key: moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, old, new) for item in value]
    return value


# --- changing -------------------------------------------------------------------------------------


def move_rows(db: sqlite3.Connection, workspace: Path) -> None:
    """Give the rows of a moved workspace the paths that it has now."""
    for row in rows_elsewhere(db, workspace):
        new = here(row, workspace)
        update_row(
            db,
            folder_of(workspace, row.id),
            {"spec": new.spec, "outputs": new.outputs, "workspace": new.workspace},
        )


def rows_elsewhere(db: sqlite3.Connection, workspace: Path) -> list[JobRow]:
    """The rows that were written when the workspace was at another path."""
    query = "SELECT * FROM job WHERE workspace != ?"
    rows = [parse_row(dict(row)) for row in db.execute(query, (str(workspace),)).fetchall()]
    return [row for row in rows if row.state != "damaged" and folder_of(workspace, row.id).is_dir()]


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
    if row is not None and row.state != "damaged":
        write_mirror(folder, row)


def write_mirror(folder: Path, row: JobRow) -> None:
    data = {**asdict(row), "spec": jsonfile.parse(row.spec)}
    write_atomic(folder / "job.json", json.dumps(data, indent=1) + "\n")


def next_number(db: sqlite3.Connection, workspace: Path) -> int:
    """One more than any job has: in the database, or among the folders of a deleted one."""
    [highest] = db.execute("SELECT max(number) FROM job").fetchone()
    numbers = [highest or 0]
    for folder in (workspace / "jobs").glob("[0-9][0-9][0-9][0-9]*-*"):
        digits = folder.name.partition("-")[0]
        if digits.isdecimal():
            numbers.append(int(digits))
    return 1 + max(numbers)


def import_rows(db: sqlite3.Connection, workspace: Path) -> None:
    """Take up the jobs whose folder is there and whose row is not; damaged ones are left out."""
    for row in rows_of_folders(workspace):
        if row.state != "damaged":
            db.execute(f"INSERT OR IGNORE {INTO_JOB}", asdict(row))
