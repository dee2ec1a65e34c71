"""Jobs: long work in processes that outlive whoever started them.

A job is a row in the workspace's database and a folder (`job_files` lists what is in it). Its state
is derived from its process (`job_state`); the files that it reads are copied (`job_inputs`) and the
paths that it writes are reserved (`job_outputs`) when it is queued. `worker.py` runs the queue.

Jobs are made here; `job_listing` says how they are and `job_changes` stops, resumes and moves them.
Their functions have their names here, too.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..records import State, write_atomic, yamlfile
from ..records.files import sweep_drafts
from ..specs import VerbSpec
from . import job_inputs, job_outputs, job_rows
from .cluster import following
from .cluster.settings import ClusterSettings
from .devices import chosen_device
from .job_changes import (
    cancel,
    ensure_worker,
    mark_stopped,
    move,
    pause,
    resume,
    send,
    update,
    wake,
)
from .job_files import Cursor
from .job_listing import (
    Job,
    Queue,
    all_rows,
    job_of,
    list_jobs,
    log_tail,
    metrics,
    of_folder,
    show,
)
from .job_rows import JobRow
from .job_state import ACTIVE, RESUMABLE
from .model_code import note_trust
from .store import Store

__all__ = [
    "ACTIVE",
    "RESUMABLE",
    "ChainPlace",
    "Cursor",
    "Job",
    "Queue",
    "all_rows",
    "cancel",
    "check_outputs",
    "create",
    "ensure_worker",
    "job_of",
    "list_jobs",
    "log_tail",
    "mark_stopped",
    "metrics",
    "move",
    "of_folder",
    "pause",
    "resume",
    "send",
    "show",
    "submit",
    "update",
    "wake",
]


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
        following.check_nodes(on, verb, typed, there)
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
    with draft_folder(store.workspace) as draft:
        note_trust(draft)
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
            write_job(db, folder, row, data, begins=state == "running")
    return show(store, folder.name)


@contextmanager
def draft_folder(workspace: Path) -> Iterator[Path]:
    """The folder of a job under a temporary name; removed unless it is renamed meanwhile."""
    sweep_drafts(workspace / "jobs", "new-*")
    mark = secrets.token_hex(4)
    draft = workspace / "jobs" / f".new-{mark}.{os.getpid()}"
    try:
        draft.mkdir()
        for name in ("inputs", "samples", "checkpoints"):
            (draft / name).mkdir()
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_job(
    db: sqlite3.Connection, folder: Path, row: JobRow, data: dict[str, Any], begins: bool
) -> None:
    """Write a new job's row and its spec.yaml. begins: this process runs it."""
    job_rows.insert_row(db, folder, row)
    if begins:
        job_rows.update_row(db, folder, job_rows.started_columns(row))
    spec_file = {"kind": row.kind, "device": row.device, **data}
    write_atomic(folder / "spec.yaml", yamlfile.dump(spec_file))
