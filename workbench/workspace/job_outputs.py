"""Who writes where: the paths that unfinished jobs write are reserved for them.

A path is reserved from the moment a job is queued until it has ended; a paused job keeps its own.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..records import BadInput
from ..specs import VerbSpec, facts
from .job_rows import (
    JobRow,
    folder_of,
    read_mirror,
    read_row,
    update_row,
    write_mirror,
)
from .job_state import ACTIVE, derive


def output_paths(spec: VerbSpec) -> list[str]:
    """The paths that a spec says it writes for itself, real and absolute."""
    paths: list[str] = []
    if spec.shares_output:
        return paths
    for fact in facts(type(spec)):
        value = getattr(spec, fact.name)
        if fact.place == "output" and isinstance(value, str):
            paths.append(os.path.realpath(value))
    return paths


def reserved(
    rows: Iterable[JobRow], workspace: Path, but: str = "", paused: bool = True
) -> dict[str, str]:
    """Path -> the job that it is reserved for, without the job `but`; paused: with those of paused
    jobs.
    """
    owners: dict[str, str] = {}
    for row in rows:
        folder = folder_of(workspace, row.id)
        if row.id == but or not row.output_paths or not folder.is_dir():
            continue
        state, _ = derive(row, folder)
        if state in ACTIVE or (paused and state == "paused"):
            owners |= dict.fromkeys(row.output_paths, row.id)
    return owners


def check_free(
    rows: Iterable[JobRow],
    workspace: Path,
    paths: Iterable[str],
    but: str = "",
    resume: bool = False,
) -> None:
    """Raises BadInput where another unfinished job writes one of the paths.

    resume: the work continues what a stopped run left there, so a paused job does not hold it.
    """
    owners = reserved(rows, workspace, but, paused=not resume)
    for path in paths:
        if path in owners:
            raise BadInput(
                f"output {path} is reserved for job {owners[path]}",
                "a path that no unfinished job writes",
                "choose another path, or wait for that job or cancel it",
            )


def reserve(db: sqlite3.Connection, workspace: Path, job: str, path: Path) -> None:
    """Reserve one more path for a job."""
    row = read_row(db, job)
    real = os.path.realpath(path)
    if row is not None and real not in row.output_paths:
        paths = [*row.output_paths, real]
        update_row(db, folder_of(workspace, job), {"outputs": json.dumps(paths)})


def note_in_folder(workspace: Path, job: str, path: Path) -> None:
    """Reserve one more path by the job's folder alone, while the database cannot be used."""
    folder = folder_of(workspace, job)
    row = read_mirror(folder)
    if row is None or row.state == "damaged":
        return
    outputs = json.dumps([*row.output_paths, os.path.realpath(path)])
    with suppress(OSError):
        write_mirror(folder, replace(row, outputs=outputs))


def own_paths(
    rows: Iterable[JobRow], job: str, folder: Path, name: str, suffix: str
) -> Iterator[Path]:
    """The paths of that name, with or without a number, that a job has in a folder: a resumed job
    finds there what it left.
    """
    of_that_name = re.compile(f"{re.escape(name)}(-[0-9]+)?{re.escape(suffix)}")
    for row in rows:
        if row.id != job:
            continue
        for real in row.output_paths:
            path = folder / os.path.basename(real)
            if of_that_name.fullmatch(path.name) and os.path.realpath(path) == real:
                yield path
