"""The workspace: one folder that holds everything, and a database that is only an index of it
(DESIGN section 7).

Whoever deletes workbench.db loses nothing: it is made again from the folders. Several processes use
one workspace at the same time (app, worker, jobs, command line), so each call opens its own
connection and every change is one transaction.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..records import BadInput, Card, Comparison, Plan, Record, SensitivityMap, Teacher

FOLDERS = {
    "teacher": "teachers",
    "map": "sensitivity",
    "plan": "plans",
    "student": "students",
    "comparison": "comparisons",
}
# kind -> (record, the file inside a folder that makes it one; empty where the record is the file
# itself)
KINDS: dict[str, tuple[type[Record], str]] = {
    "teacher": (Teacher, ""),
    "map": (SensitivityMap, ""),
    "plan": (Plan, ""),
    "student": (Card, "card.json"),
    "comparison": (Comparison, "comparison.json"),
}
JOB_COLUMNS = (
    "id",
    "number",
    "kind",
    "title",
    "device",
    "spec",
    "state",
    "rank",
    "stop",
    "stop_at",
    "pid",
    "start",
    "boot",
    "keeper",
    "keeper_start",
    "attempt",
    "created",
    "started",
    "ended",
    "error",
)


def default_workspace() -> Path:
    """$WORKBENCH_WORKSPACE, else ./workspace."""
    return Path(os.environ.get("WORKBENCH_WORKSPACE") or "workspace")


# --- migrations: numbered, each in a transaction, recorded in a table -----------------------------


def m001_jobs(db: sqlite3.Connection) -> None:
    db.execute("""CREATE TABLE job (id TEXT PRIMARY KEY, number INTEGER, kind TEXT, title TEXT, device TEXT, spec TEXT, state TEXT,
        rank REAL, stop TEXT, stop_at REAL, pid INTEGER, start INTEGER, boot TEXT, keeper INTEGER,
        keeper_start INTEGER, attempt INTEGER, created REAL, started REAL, ended REAL, error TEXT)""")
    db.execute(
        "CREATE TABLE metric (job TEXT, step INTEGER, name TEXT, value REAL, PRIMARY KEY "
        "(job, name, step)) WITHOUT ROWID"
    )


def m002_records(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE record (path TEXT PRIMARY KEY, kind TEXT, id TEXT, name TEXT, "
        "created REAL, mtime REAL, about TEXT)"
    )


def m003_votes_and_requests(db: sqlite3.Connection) -> None:
    db.execute("""CREATE TABLE vote (comparison TEXT, item INTEGER, a TEXT, b TEXT, winner TEXT, rater TEXT, created REAL,
        PRIMARY KEY (comparison, item, a, b, rater))""")
    db.execute("""CREATE TABLE request (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, spec TEXT, device TEXT, state TEXT,
        result TEXT, error TEXT, created REAL)""")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    m001_jobs,
    m002_records,
    m003_votes_and_requests,
)


def migrate(db: sqlite3.Connection) -> None:
    """Run the migrations that this database has not seen. Call inside a transaction."""
    db.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, applied REAL)")
    seen = {row[0] for row in db.execute("SELECT name FROM migration")}
    for step in MIGRATIONS:
        if step.__name__ not in seen:
            step(db)
            db.execute("INSERT INTO migration VALUES (?, ?)", (step.__name__, time.time()))


class Store:
    """A workspace. Creates its folders and its database.

    Raises BadInput where the path is not a folder one can write to.
    """

    def __init__(self, workspace: Path | str | None = None):
        self.workspace = Path(workspace or default_workspace()).expanduser().resolve()
        self.path = self.workspace / "workbench.db"
        try:
            for folder in (*FOLDERS.values(), "jobs"):
                (self.workspace / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"workspace {self.workspace} cannot be made ({error.strerror})",
                "a folder one can write to",
                "choose another --workspace",
            ) from None
        if self.path.exists():
            with self.db() as db:
                migrate(db)
        else:
            self.rebuild()

    # --- the database -----------------------------------------------------------------------------

    @contextmanager
    def db(self, write: bool = True) -> Iterator[sqlite3.Connection]:
        """A connection inside one transaction; rolled back when the block raises. Makes a missing
        database first.
        """
        connection = self._connect()
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error) or "malformed" in str(error):
                raise BadInput(
                    f"{self.path} is damaged ({error})",
                    "a database",
                    "delete it: it is made again from the folders",
                ) from None
            raise
        finally:
            connection.close()  # an open transaction is rolled back

    def _connect(self) -> sqlite3.Connection:
        for _ in range(10):
            if not self.path.exists():
                self.rebuild()
            with suppress(sqlite3.OperationalError):  # deleted since we looked
                connection = sqlite3.connect(
                    f"file:{quote(str(self.path))}?mode=rw",
                    uri=True,
                    timeout=30,
                    isolation_level=None,
                )
                connection.row_factory = sqlite3.Row
                return connection
        raise BadInput(
            f"{self.path} cannot be opened",
            "a database one can read and write",
            "check its permissions",
        )

    def rebuild(self) -> None:
        """Make the database again from the folders, unless a good one is there: then only add what
        it lacks.

        Side effects: writes workbench.db. It appears under its name when it is complete, so nobody
        meets half of it.
        """
        with open(self.workspace / ".rebuild.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.path.exists():
                self._create()
        with self.db() as db:
            self._import_jobs(db)
        for kind in FOLDERS:
            self.records(kind)
        for comparison in self.comparisons():
            self._import_votes(Path(comparison["path"]))

    def _create(self) -> None:
        fresh = self.workspace / ".workbench.db.new"
        # an old WAL would be replayed into the new file
        for stale in (fresh, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
            stale.unlink(missing_ok=True)
        db = sqlite3.connect(fresh, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        migrate(db)
        self._import_jobs(db)
        db.execute("COMMIT")
        db.close()
        os.rename(fresh, self.path)

    def _import_jobs(self, db: sqlite3.Connection) -> None:
        """Take up jobs whose folder is there and whose row is not."""
        for file in sorted((self.workspace / "jobs").glob("*/job.json")):
            # a folder that is no job, or one just being made
            with suppress(OSError, ValueError, KeyError):
                row = json.loads(file.read_text())
                values = {**row, "id": file.parent.name, "spec": json.dumps(row["spec"])}
                db.execute(
                    f"INSERT OR IGNORE INTO job ({', '.join(JOB_COLUMNS)}) VALUES "
                    f"({', '.join(':' + c for c in JOB_COLUMNS)})",
                    {c: values[c] for c in JOB_COLUMNS},
                )

    # --- the index of records ---------------------------------------------------------------------

    def teachers(self) -> list[dict[str, Any]]:
        return self.records("teacher")

    def maps(self, fingerprint: str | None = None) -> list[dict[str, Any]]:
        """Sensitivity maps, of one teacher where its fingerprint is given."""
        return [
            m for m in self.records("map") if fingerprint is None or m["fingerprint"] == fingerprint
        ]

    def plans(self) -> list[dict[str, Any]]:
        return self.records("plan")

    def students(self) -> list[dict[str, Any]]:
        return self.records("student")

    def comparisons(self) -> list[dict[str, Any]]:
        return self.records("comparison")

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Records of a kind, newest first: id, name, path, created and what `about` adds.

        Looks into the folder each time, so files put there by hand are found; reads only those that
        changed.
        """
        found = self._files(kind)
        with self.db(write=False) as db:
            known = {
                row["path"]: row["mtime"]
                for row in db.execute("SELECT path, mtime FROM record WHERE kind = ?", (kind,))
            }
        fresh = [
            (path, name, mtime) for path, (name, mtime) in found.items() if known.get(path) != mtime
        ]
        gone = [path for path in known if path not in found]
        if fresh or gone:
            rows = [row for entry in fresh if (row := index_row(kind, *entry))]
            with self.db() as db:
                db.executemany("DELETE FROM record WHERE path = ?", [(p,) for p in gone])
                db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        with self.db(write=False) as db:
            found_rows = db.execute(
                "SELECT * FROM record WHERE kind = ? ORDER BY created DESC, path", (kind,)
            ).fetchall()
        return [
            {**{key: r[key] for key in ("id", "name", "path", "created")}, **json.loads(r["about"])}
            for r in found_rows
        ]

    def _files(self, kind: str) -> dict[str, tuple[str, float]]:
        """Real path -> (name, time of change) of what lies in the kind's folder; links point to
        results elsewhere.
        """
        marker, out = KINDS[kind][1], {}
        for entry in sorted((self.workspace / FOLDERS[kind]).iterdir()):
            if entry.name.startswith(".") or (
                not marker and entry.suffix not in (".json", ".yaml", ".yml")
            ):
                continue
            with suppress(OSError):
                mtime = (entry / marker if marker else entry).stat().st_mtime
                name = entry.stem if not marker else entry.name
                out[os.path.realpath(entry)] = (
                    name.rpartition("@")[0] if entry.is_symlink() else name,
                    mtime,
                )
        return out

    def add(self, kind: str, path: Path | str, name: str = "") -> dict[str, Any]:
        """Index a record. One that lies outside the workspace gets a link in the kind's folder, so
        that a rebuild finds it.

        Raises BadInput where no such record is at that path.
        """
        real = Path(os.path.realpath(path))
        if real.parent != self.workspace / FOLDERS[kind]:
            mark = hashlib.sha256(str(real).encode()).hexdigest()[:6]
            suffix = "" if KINDS[kind][1] else real.suffix
            link = (
                self.workspace
                / FOLDERS[kind]
                / f"{name or real.name.removesuffix(suffix)}@{mark}{suffix}"
            )
            with suppress(FileExistsError):
                link.symlink_to(real)
        for record in self.records(kind):
            if record["path"] == str(real):
                return record
        raise BadInput(
            f"{path} is no {KINDS[kind][0].what}", f"a {KINDS[kind][0].what}", "check the file"
        )

    def find(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record by id, name or path; the newest where several fit."""
        keys = {key, os.path.realpath(key)}
        return next((r for r in self.records(kind) if keys & {r["id"], r["name"], r["path"]}), None)

    def out(self, kind: str, name: str, suffix: str = "") -> Path:
        """A free path for a new record in the workspace."""
        folder, count = self.workspace / FOLDERS[kind], 1
        while True:
            path = folder / (name + (f"-{count}" if count > 1 else "") + suffix)
            if not path.exists():
                return path
            count += 1

    # --- votes ------------------------------------------------------------------------------------

    def vote(
        self, comparison: Path | str, item: int, a: str, b: str, winner: str, rater: str = ""
    ) -> None:
        """Record one blind vote (winner: a name, or "" for a tie); a second vote of the same rater
        replaces the first.

        Side effects: also appended to votes.jsonl beside the comparison, from which a rebuild takes
        it.
        """
        folder, (a, b) = Path(os.path.realpath(comparison)), sorted((a, b))
        row = (str(folder), item, a, b, winner, rater, time.time())
        with open(folder / "votes.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row[1:]) + "\n")
        with self.db() as db:
            db.execute("INSERT OR REPLACE INTO vote VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def votes(self, comparison: Path | str) -> list[dict[str, Any]]:
        with self.db(write=False) as db:
            rows = db.execute(
                "SELECT * FROM vote WHERE comparison = ? ORDER BY created",
                (os.path.realpath(comparison),),
            )
            return [dict(row) for row in rows]

    def _import_votes(self, folder: Path) -> None:
        with suppress(FileNotFoundError), self.db() as db:
            for line in (folder / "votes.jsonl").read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    db.execute(
                        "INSERT OR REPLACE INTO vote VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (str(folder), *json.loads(line)),
                    )

    # --- metrics ----------------------------------------------------------------------------------

    def add_metrics(self, job: str, rows: list[dict[str, Any]]) -> None:
        """Copy a job's numbers into the table, for questions over many jobs. The file stays the
        truth.
        """
        flat = [
            (job, r["step"], k, v)
            for r in rows
            for k, v in r.items()
            if k != "step" and isinstance(v, int | float)
        ]
        with self.db() as db:
            db.execute("DELETE FROM metric WHERE job = ?", (job,))
            db.executemany("INSERT OR REPLACE INTO metric VALUES (?, ?, ?, ?)", flat)


def index_row(kind: str, path: str, name: str, mtime: float) -> tuple[Any, ...] | None:
    """The index row of a record, or None where the file is not what its folder says."""
    cls, marker = KINDS[kind]
    try:
        record = cls.load(Path(path) / marker if marker else path)
    except BadInput:
        return None
    return path, kind, record.digest, name, mtime, mtime, json.dumps(about(record))


def about(record: Record) -> dict[str, Any]:
    """What a list shows of a record, beside its name."""
    if isinstance(record, Teacher):
        return {
            "teacher": record.name,
            "family": record.family,
            "parameters": record.parameters,
            "fingerprint": record.fingerprint,
        }
    if isinstance(record, SensitivityMap):
        return {
            "teacher": record.teacher,
            "fingerprint": record.fingerprint,
            "family": record.family,
            "metric": record.metric,
            "edits": record.edits,
            "timesteps": len(record.timesteps),
            "rows": len(record.rows),
        }
    if isinstance(record, Plan):
        return {
            "teacher": record.teacher,
            "family": record.family,
            "rule": record.origin.get("rule"),
            "depth": record.depth(),
        }
    if isinstance(record, Card):
        return {
            "teacher": record.teacher,
            "fingerprint": record.teacher_fingerprint,
            "original": record.original,
            "parameters": record.parameters,
            "original_parameters": record.original_parameters,
            "stock": record.stock,
        }
    if isinstance(record, Comparison):
        return {
            "suite": record.suite,
            "models": [m.name for m in record.models],
            "prompts": len(record.prompts),
        }
    raise TypeError(f"{type(record).__name__} is not indexed")
