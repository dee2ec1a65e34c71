"""The tables of workbench.db: migrations, each in a transaction and recorded in a table."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable


def m001_jobs(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE job (id TEXT PRIMARY KEY, number INTEGER, kind TEXT, title TEXT, "
        "device TEXT, spec TEXT, state TEXT, rank REAL, stop TEXT, stop_at REAL, pid INTEGER, "
        "start INTEGER, boot TEXT, keeper INTEGER, keeper_start INTEGER, attempt INTEGER, "
        "created REAL, started REAL, ended REAL, error TEXT)"
    )
    db.execute(
        "CREATE TABLE metric (job TEXT, step INTEGER, name TEXT, value REAL, "
        "PRIMARY KEY (job, name, step)) WITHOUT ROWID"
    )


def m002_records(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE record (path TEXT PRIMARY KEY, kind TEXT, id TEXT, name TEXT, "
        "created REAL, mtime REAL, about TEXT)"
    )


def m003_votes_and_requests(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE vote (comparison TEXT, item INTEGER, a TEXT, b TEXT, winner TEXT, "
        "rater TEXT, created REAL, PRIMARY KEY (comparison, item, a, b, rater))"
    )
    db.execute(
        "CREATE TABLE request (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, spec TEXT, "
        "device TEXT, state TEXT, result TEXT, error TEXT, created REAL)"
    )


def m004_outputs(db: sqlite3.Connection) -> None:
    """Jobs reserve the paths that they write. Metrics live in files only; nobody could vote yet."""
    db.execute("ALTER TABLE job ADD COLUMN outputs TEXT")
    db.execute("DROP TABLE metric")
    db.execute("DROP TABLE vote")
    db.execute("DELETE FROM record")  # the index is made again, with the new fields


def m005_workspace(db: sqlite3.Connection) -> None:
    """Where the workspace was when a job was queued: a moved one resumes its jobs. The index is made
    again: it now has damaged records, too.
    """
    db.execute("ALTER TABLE job ADD COLUMN workspace TEXT")
    db.execute("DELETE FROM record")


def m006_engines(db: sqlite3.Connection) -> None:
    """Jobs that run on a cluster: the engine that has them, and its number for each."""
    db.execute("ALTER TABLE job ADD COLUMN engine TEXT")
    db.execute("ALTER TABLE job ADD COLUMN engine_id TEXT")


def m007_chains(db: sqlite3.Connection) -> None:
    """Jobs that were queued together, each of which waits for the one that it follows."""
    db.execute("ALTER TABLE job ADD COLUMN chain TEXT")
    db.execute("ALTER TABLE job ADD COLUMN follows TEXT")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    m001_jobs,
    m002_records,
    m003_votes_and_requests,
    m004_outputs,
    m005_workspace,
    m006_engines,
    m007_chains,
)


def is_current(db: sqlite3.Connection) -> bool:
    """Whether this database has seen every migration."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'").fetchone() is None:
        return False
    return not pending(db)


def pending(db: sqlite3.Connection) -> list[Callable[[sqlite3.Connection], None]]:
    """The migrations that this database has not seen."""
    applied = {row[0] for row in db.execute("SELECT name FROM migration")}
    return [step for step in MIGRATIONS if step.__name__ not in applied]


def migrate(db: sqlite3.Connection) -> None:
    """Run the migrations that this database has not seen. Call inside a transaction."""
    db.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, applied REAL)")
    for step in pending(db):
        step(db)
        db.execute("INSERT INTO migration VALUES (?, ?)", (step.__name__, time.time()))
