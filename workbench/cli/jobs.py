"""Verbs about jobs and the app: jobs, app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..records import BadInput
from ..workspace import jobs
from ..workspace.store import Store, default_workspace
from . import console
from .flags import Json, Workspace, app
from .run import emit, summary


@app.command("jobs")
def jobs_(
    action: Annotated[
        str, typer.Argument(help="list, show, log, cancel, pause, resume or move.")
    ] = "list",
    job: Annotated[str | None, typer.Argument(metavar="ID", help="A job's id or number.")] = None,
    place: Annotated[
        int, typer.Argument(metavar="PLACE", help="Where to move it in the queue; 0 is next.")
    ] = 0,
    lines: Annotated[int, typer.Option(min=1, help="How much of the log.")] = 50,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Look after jobs: list, show, log, cancel, pause, resume, move."""
    store = Store(workspace)
    jobs.wake(store)
    if action == "list":
        listing = [summary(entry) for entry in jobs.list_jobs(store)]
        emit(
            {"jobs": listing},
            as_json,
            lambda r: (
                console.table(
                    [
                        {**row, "error": (row["error"].splitlines() or [""])[0][:80]}
                        for row in r["jobs"]
                    ],
                    ["id", "title", "state", "step", "total", "eta", "error"],
                )
                if r["jobs"]
                else "no jobs"
            ),
        )
        return
    acts: dict[str, Callable[[str], jobs.Job]] = {
        "show": lambda i: jobs.show(store, i),
        "cancel": lambda i: jobs.cancel(store, i),
        "pause": lambda i: jobs.pause(store, i),
        "resume": lambda i: jobs.resume(store, i),
        "move": lambda i: jobs.move(store, i, place),
    }
    if action not in (*acts, "log"):
        raise BadInput(
            f"jobs {action}", "list, show, log, cancel, pause, resume or move", "choose one"
        )
    if job is None:
        raise BadInput(
            f"jobs {action} without an id", "a job's id or number", "see `workbench jobs list`"
        )
    if action == "log":
        log = jobs.log_tail(store, job, lines)
        emit({"id": job, "log": log}, as_json, lambda r: r["log"])
        return
    found_job = acts[action](job)
    full = {
        **summary(found_job),
        "folder": str(found_job.folder),
        "spec": found_job.spec,
        "result": found_job.result,
    }
    times = ("created", "started", "ended")
    emit(
        full if action == "show" else summary(found_job),
        as_json,
        lambda r: console.page({k: console.date(v) if k in times else v for k, v in r.items()}),
    )


@app.command("app")
def app_(
    workspace: Workspace = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: Annotated[
        str | None, typer.Option(metavar="USER:PASS", help="Ask for this name and password.")
    ] = None,
    auth_file: Annotated[Path | None, typer.Option(help="A file with USER:PASS lines.")] = None,
) -> None:
    """Open the workbench in a browser."""
    from ..records import read_text

    lines = [auth] if auth else read_text(auth_file, "auth file").split() if auth_file else []
    for line in lines:
        if not all(line.partition(":")):
            raise BadInput(
                "a login without a name or a password",
                "USER:PASS",
                "write both, with a colon between",
            )
    from .. import ui

    logins = [(name, word) for name, _, word in (line.partition(":") for line in lines)]
    ui.launch(workspace or default_workspace(), host, port, auth=logins or None)
