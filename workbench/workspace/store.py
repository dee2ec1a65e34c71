"""The workspace: one folder that holds everything, and a database that is only an index of it.

Whoever deletes workbench.db loses nothing: it is made again from the folders. Several processes use
one workspace at the same time (app, worker, jobs, command line), so each call opens its own
connection and every change is one transaction.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ..records import BadInput
from . import job_outputs, job_rows
from .record_index import KINDS, Candidate, Entry, candidates, read_entry
from .schema import migrate


def default_workspace() -> Path:
    """$WORKBENCH_WORKSPACE, else ./workspace."""
    return Path(os.environ.get("WORKBENCH_WORKSPACE") or "workspace")


class Store:
    """A workspace. Creates its folders and its database.

    job: the id of the job that this process runs, for which `out` reserves paths; empty outside of
    jobs. Raises BadInput where the path is not a folder one can write to.
    """

    def __init__(self, workspace: Path | str | None = None, job: str = ""):
        self.workspace = Path(workspace or default_workspace()).expanduser().resolve()
        self.path = self.workspace / "workbench.db"
        self.job = job
        try:
            for kind in KINDS.values():
                (self.workspace / kind.folder).mkdir(parents=True, exist_ok=True)
            (self.workspace / "jobs").mkdir(exist_ok=True)
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
        """A connection inside one transaction, rolled back when the block raises.

        Makes a missing database first. Raises BadInput where the file is damaged.
        """
        connection = self._connect()
        begin = "BEGIN"
        if write:
            begin = "BEGIN IMMEDIATE"
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(begin)
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
        """Make the database again from the folders; where a good one is there, add what it lacks.

        Side effects: writes workbench.db. It appears under its name when it is complete, so nobody
        meets half of it.
        """
        with open(self.workspace / ".rebuild.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.path.exists():
                self._create()
        with self.db() as db:
            job_rows.import_rows(db, self.workspace)
        for kind in KINDS:
            self.records(kind)

    def _create(self) -> None:
        draft = self.workspace / ".workbench.db.new"
        # an old write-ahead log would be replayed into the new file
        for stale in (draft, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
            stale.unlink(missing_ok=True)
        db = sqlite3.connect(draft, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        migrate(db)
        job_rows.import_rows(db, self.workspace)
        db.execute("COMMIT")
        db.close()
        os.rename(draft, self.path)

    # --- the index of records ---------------------------------------------------------------------

    def teachers(self) -> list[Entry]:
        return self.records("teacher")

    def maps(self, fingerprint: str | None = None) -> list[Entry]:
        """Sensitivity maps, of one teacher where its fingerprint is given."""
        maps = self.records("map")
        if fingerprint is None:
            return maps
        return [entry for entry in maps if entry.fingerprint == fingerprint]

    def plans(self) -> list[Entry]:
        return self.records("plan")

    def students(self) -> list[Entry]:
        return self.records("student")

    def comparisons(self) -> list[Entry]:
        return self.records("comparison")

    def records(self, kind: str) -> list[Entry]:
        """The records of a kind, newest first.

        Looks into the folder each time, so that files put there by hand are found; reads only
        those that have changed.
        """
        self._refresh(kind, candidates(KINDS[kind], self.workspace / KINDS[kind].folder))
        query = "SELECT about FROM record WHERE kind = ? ORDER BY created DESC, path"
        with self.db(write=False) as db:
            rows = db.execute(query, (kind,)).fetchall()
        return [Entry.model_validate_json(row["about"]) for row in rows]

    def _refresh(self, kind: str, present: list[Candidate]) -> None:
        """Bring the table `record` in line with the files that are there now."""
        query = "SELECT path, mtime FROM record WHERE kind = ?"
        with self.db(write=False) as db:
            indexed = {row["path"]: row["mtime"] for row in db.execute(query, (kind,))}
        changed = [item for item in present if indexed.get(item.path) != item.mtime]
        deleted = set(indexed) - {item.path for item in present}
        if not changed and not deleted:
            return
        entries = [(item, read_entry(kind, item)) for item in changed]
        with self.db() as db:
            for path in deleted:
                db.execute("DELETE FROM record WHERE path = ?", (path,))
            for item, entry in entries:
                if entry is not None:
                    about = entry.model_dump_json(exclude_defaults=True)
                    row = (item.path, kind, entry.id, item.name, item.mtime, item.mtime, about)
                    db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def add(self, kind: str, path: Path | str, name: str = "") -> Entry:
        """Index a record. One that lies outside the workspace gets a link in the kind's folder, so
        that a rebuild finds it.

        Raises BadInput where no such record is at that path.
        """
        real = Path(os.path.realpath(path))
        folder = self.workspace / KINDS[kind].folder
        if real.parent != folder:
            suffix = real.suffix
            if KINDS[kind].marker:
                suffix = ""
            mark = hashlib.sha256(str(real).encode()).hexdigest()[:6]
            link_name = name or real.name.removesuffix(suffix)
            with suppress(FileExistsError):
                (folder / f"{link_name}@{mark}{suffix}").symlink_to(real)
        for entry in self.records(kind):
            if entry.path == str(real):
                return entry
        what = KINDS[kind].model.what
        raise BadInput(f"no {what} at {path}", f"a {what}", "check the file")

    def find(self, kind: str, key: str) -> Entry | None:
        """A record by id, name or path; the newest where several fit."""
        path = os.path.realpath(key)
        for entry in self.records(kind):
            if key in (entry.id, entry.name) or entry.path in (key, path):
                return entry
        return None

    # --- new records ------------------------------------------------------------------------------

    def out(self, kind: str, name: str, suffix: str = "") -> Path:
        """A path for a new record: nothing is there, and no unfinished job writes there.

        In a job's process the path is reserved for that job until it has ended.
        """
        folder = self.workspace / KINDS[kind].folder
        with self.db(write=bool(self.job)) as db:
            taken = job_outputs.reserved(db, self.workspace, but=self.job)
            path = folder / f"{name}{suffix}"
            count = 1
            while path.exists() or os.path.realpath(path) in taken:
                count += 1
                path = folder / f"{name}-{count}{suffix}"
            if self.job:
                job_outputs.reserve(db, self.workspace, self.job, path)
        return path
