"""The workspace: one folder that holds everything, and a database that is only an index of it.

Whoever deletes workbench.db loses nothing: it is made again from the folders. Several processes use
one workspace at the same time (app, worker, jobs, command line), so each call opens its own
connection and every change is one transaction.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from pydantic import ValidationError

from ..records import BadInput
from . import job_outputs, job_rows
from .database import LOOK_PATIENCE, Database, IndexUnavailable
from .record_index import KINDS, Candidate, Entry, candidates, read_entry


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
        self.database = Database(self.workspace)
        self.path = self.database.path
        self.job = job
        self.entries: dict[str, Entry] = {}  # read by us, for when the database cannot be used
        try:
            self.workspace.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else's to read
            for kind in KINDS.values():
                (self.workspace / kind.folder).mkdir(parents=True, exist_ok=True)
            (self.workspace / "jobs").mkdir(exist_ok=True)
        except OSError as error:
            if not (self.workspace / "jobs").is_dir():
                raise BadInput(
                    f"workspace {self.workspace} cannot be made ({error.strerror})",
                    "a folder one can write to",
                    "choose another --workspace",
                ) from None
        with suppress(IndexUnavailable, OSError):  # it is an index: whoever changes it will see
            self.database.prepare()
            self.follow_move()

    # --- the database -----------------------------------------------------------------------------

    def db(
        self, write: bool = True, patience: float | None = None
    ) -> AbstractContextManager[sqlite3.Connection]:
        """A connection inside one transaction, rolled back when the block raises.

        Raises IndexUnavailable; whoever only looks then reads the folders.
        """
        return self.database.transaction(write, patience)

    def rebuild(self) -> None:
        """Make the database again from the folders; where a good one is there, add what it lacks.

        Side effects: writes workbench.db.
        """
        self.database.make()
        with self.db() as db:
            job_rows.import_rows(db, self.workspace)
        for kind in KINDS:
            self.records(kind)

    def follow_move(self) -> None:
        """Where the workspace was moved, its jobs get their new paths."""
        with self.db(write=False) as db:
            has_moved = bool(job_rows.rows_elsewhere(db, self.workspace))
        if has_moved:
            with self.db() as db:
                job_rows.move_rows(db, self.workspace)

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
        """The records of a kind that can be read, newest first.

        Looks into the folder each time, so that files put there by hand are found; reads only
        those that have changed.
        """
        return [entry for entry in self.all_records(kind) if not entry.damaged]

    def damaged(self, kind: str = "") -> list[Entry]:
        """The records of a kind, of all kinds by default, that cannot be read, newest first."""
        entries = []
        for name in [kind] if kind else KINDS:
            entries += [entry for entry in self.all_records(name) if entry.damaged]
        return entries

    def all_records(self, kind: str) -> list[Entry]:
        """The records of a kind, damaged ones too, newest first."""
        present = candidates(KINDS[kind], self.workspace / KINDS[kind].folder)
        indexed = self._indexed(kind)
        known = {**self.entries, **(indexed or {})}
        fresh = []
        entries = []
        for item in present:
            entry = known.get(item.path)
            if entry is None or entry.created != item.mtime:
                entry = read_entry(kind, item)
                self.entries[item.path] = entry
                fresh.append(entry)
            entries.append(entry)
        if indexed is not None:
            self._index(indexed, fresh, {item.path for item in present})
        return sorted(entries, key=lambda entry: (-entry.created, entry.path))

    def _indexed(self, kind: str) -> dict[str, Entry] | None:
        """Path -> what the database has of a kind; None where it cannot be used."""
        entries = {}
        try:
            with self.db(write=False) as db:
                rows = db.execute("SELECT * FROM record WHERE kind = ?", (kind,)).fetchall()
        except (IndexUnavailable, OSError):
            return None
        for row in rows:
            try:
                entries[row["path"]] = Entry.model_validate_json(row["about"])
            except ValidationError:  # of another version: it is read again
                continue
        return entries

    def _index(self, indexed: dict[str, Entry], fresh: list[Entry], present: set[str]) -> None:
        """Bring the table `record` in line with the files that are there now, where that can be."""
        unknown = [entry for entry in fresh if indexed.get(entry.path) != entry]
        deleted = set(indexed) - present
        if not unknown and not deleted:
            return
        with suppress(IndexUnavailable, OSError), self.db(patience=LOOK_PATIENCE) as db:
            for path in deleted:
                db.execute("DELETE FROM record WHERE path = ?", (path,))
            for entry in unknown:
                about = entry.model_dump_json(exclude_defaults=True)
                time = entry.created
                row = (entry.path, entry.kind, entry.id, entry.name, time, time, about)
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
            with suppress(OSError):  # it is there, or the disk is full: the record itself is whole
                (folder / f"{link_name}@{mark}{suffix}").symlink_to(real)
        for entry in self.all_records(kind):
            if entry.path == str(real) and not entry.damaged:
                return entry
        with suppress(OSError):
            time = KINDS[kind].record_file(real).stat().st_mtime
            entry = read_entry(kind, Candidate(str(real), name or real.stem, time))
            if not entry.damaged:
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

    def out(self, kind: str, name: str, suffix: str = "", *, replace: bool = False) -> Path:
        """A path for a new record: no unfinished job writes there, and nothing is there; replace:
        an older record may be.

        In a job's process the path is reserved for that job until it has ended, and a resumed job
        gets the path that it had.
        """
        try:
            with self.db(write=bool(self.job)) as db:
                rows = job_rows.read_rows(db)
                path = self._free_path(kind, name, suffix, rows, replace)
                if self.job:
                    job_outputs.reserve(db, self.workspace, self.job, path)
            return path
        except (IndexUnavailable, OSError):  # the work goes on; job.json has the reservation
            rows = job_rows.rows_of_folders(self.workspace)
            path = self._free_path(kind, name, suffix, rows, replace)
            if self.job:
                job_outputs.note_in_folder(self.workspace, self.job, path)
            return path

    def _free_path(
        self, kind: str, name: str, suffix: str, rows: list[job_rows.JobRow], replace: bool
    ) -> Path:
        folder = self.workspace / KINDS[kind].folder
        taken = job_outputs.reserved(rows, self.workspace, but=self.job)
        candidates = [*job_outputs.own_paths(rows, self.job, folder, name, suffix)]
        candidates.append(folder / f"{name}{suffix}")
        count = 1
        while True:
            for path in candidates:
                is_free = replace or not path.exists()
                if is_free and os.path.realpath(path) not in taken:
                    return path
            count += 1
            candidates = [folder / f"{name}-{count}{suffix}"]
