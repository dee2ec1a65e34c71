"""workbench.db, an index of the workspace's folders: opened anew for each call, made again where it
is missing or damaged, and never the only place of anything.

Where it cannot be used (locked by another process, a read-only or full disk) `IndexUnavailable` is
raised: whoever only looks reads the folders instead.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ..records import BadInput
from . import job_rows
from .filesystems import is_shared
from .schema import is_current, migrate

FOLDERS_ONLY = "WORKBENCH_FOLDERS_ONLY"  # set on a cluster's nodes: the database is not for them
LOOK_PATIENCE = 1.0  # seconds that a look waits for a lock: it can read the folders
CHANGE_PATIENCE = 30.0
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
NO_ACCESS = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
)


class IndexUnavailable(BadInput):
    """The workspace's database cannot be used now; its folders can."""


class Database:
    """The file workbench.db of a workspace."""

    def __init__(self, workspace: Path):
        self.workspace = workspace
        self.path = workspace / "workbench.db"

    @contextmanager
    def transaction(
        self, write: bool = True, patience: float | None = None
    ) -> Iterator[sqlite3.Connection]:
        """A connection inside one transaction, rolled back when the block raises.

        patience: seconds to wait for another process's lock. Makes a missing or damaged database
        first. Raises IndexUnavailable.
        """
        if os.environ.get(FOLDERS_ONLY):
            raise IndexUnavailable(
                f"{self.path} is not used here ({FOLDERS_ONLY} is set)",
                "a machine of the front ends",
                "run the command there",
            )
        if patience is None:
            patience = CHANGE_PATIENCE if write else LOOK_PATIENCE
        connection = self._connect(patience)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from None
        finally:
            connection.close()  # an open transaction is rolled back

    def prepare(self) -> None:
        """Make the database where it is missing or damaged, and bring its tables up to date. On a
        file system that machines share it has no write-ahead log, also where it was made elsewhere.
        """
        with self.transaction(write=False) as db:
            [answer] = db.execute("PRAGMA quick_check(1)").fetchone()
            current = answer == "ok" and is_current(db)
        if answer != "ok":
            self.make()
        if not current:
            with self.transaction() as db:
                migrate(db)
        if is_shared(self.workspace):
            with suppress(sqlite3.DatabaseError), closing(self._connect(LOOK_PATIENCE)) as db:
                db.execute("PRAGMA journal_mode = DELETE").fetchone()

    def make(self) -> None:
        """Make the database from the folders, unless a sound one is there. A damaged one is set
        aside, and a line on stderr says so.

        It appears under its name when it is complete, so nobody meets half of it.
        """
        try:
            with open(self.workspace / ".rebuild.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if is_sound(self.path):
                    return
                if self.path.exists():
                    aside = self.path.with_name("workbench.db.damaged")
                    os.replace(self.path, aside)
                    say(f"{self.path} was damaged; it is made again from the folders")
                self._create()
        except (OSError, sqlite3.DatabaseError) as error:
            raise self._no_access(str(error)) from None

    def _create(self) -> None:
        draft = self.workspace / ".workbench.db.new"
        # an old write-ahead log would be replayed into the new file
        for stale in (draft, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
            stale.unlink(missing_ok=True)
        db = sqlite3.connect(draft, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            if not is_shared(self.workspace):
                db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            migrate(db)
            job_rows.import_rows(db, self.workspace)
            db.execute("COMMIT")
        finally:
            db.close()
        os.rename(draft, self.path)

    def _connect(self, patience: float) -> sqlite3.Connection:
        """A connection to a file that is a database.

        Only SQLite opens that file: to close it ourselves would drop the locks of this process's
        other connections (https://sqlite.org/howtocorrupt.html, 2.2).
        """
        for _ in range(3):
            if is_empty(self.path):
                self.make()
            try:
                return opened(self.path, patience)
            except sqlite3.DatabaseError as error:
                if error_code(error) == sqlite3.SQLITE_CANTOPEN and is_empty(self.path):
                    continue  # deleted since we looked
                if error_code(error) not in DAMAGE:
                    raise self._explained(error) from None
                self.make()
        raise self._no_access("it cannot be opened")

    def _explained(self, error: sqlite3.DatabaseError) -> Exception:
        """What to raise for an error of SQLite; a fault of ours stays as it is."""
        code = error_code(error)
        if code in DAMAGE or "no such table" in str(error):
            self.make()
            return IndexUnavailable(
                f"{self.path} was damaged",
                "a database; it has been made again from the folders",
                "run the command again",
            )
        if code in BUSY:
            return IndexUnavailable(
                f"{self.path} is locked by another process",
                "a database that other processes hold for moments only",
                "end that process, or wait for it",
            )
        if code in NO_ACCESS:
            return self._no_access(str(error))
        return error

    def _no_access(self, reason: str) -> IndexUnavailable:
        return IndexUnavailable(
            f"{self.path} cannot be used ({reason})",
            "a database one can read and write",
            "check the disk's free space and the permissions",
        )


def error_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_empty(path: Path) -> bool:
    """Whether there is no such file, or nothing in it."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:  # opening it says why
        return False


def opened(path: Path, patience: float) -> sqlite3.Connection:
    """A connection that has read the file's first page."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=patience, isolation_level=None
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA schema_version").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def is_sound(path: Path) -> bool:
    """Whether a file is a whole database with our tables; one that is in use counts as sound."""
    if is_empty(path):
        return False
    try:
        with closing(opened(path, LOOK_PATIENCE)) as db:
            [answer] = db.execute("PRAGMA quick_check(1)").fetchone()
            for table in ("job", "record", "request", "migration"):
                db.execute(f"SELECT 1 FROM {table}").fetchone()
            return bool(answer == "ok")
    except sqlite3.DatabaseError as error:
        return error_code(error) in (*BUSY, *NO_ACCESS)


def say(line: str) -> None:
    """A line for people, beside whatever a command prints."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
