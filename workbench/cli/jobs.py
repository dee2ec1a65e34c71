"""`workbench jobs`: list, inspect and control the workspace's jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..records import BadInput
from ..workspace import job_control, jobs
from ..workspace.store import Store
from .commands import AsJson, Workspace
from .console import date, page, table
from .run import emit

ACTIONS: dict[str, Callable[[Store, str], jobs.Job]] = {
    "show": jobs.show,
    "cancel": jobs.cancel,
    "pause": jobs.pause,
    "resume": jobs.resume,
    "stopped": jobs.mark_stopped,
    "save": job_control.save_now,
    "sample": job_control.sample_now,
}
COPIES: dict[str, Callable[[Store, str, dict[str, Any]], jobs.Job]] = {
    "continue": job_control.continue_from,
    "duplicate": job_control.duplicate,
}
OTHERS = ("list", "log", "move")
KNOWN = ", ".join(sorted([*ACTIONS, *COPIES, *OTHERS]))
HELP = (
    "list; show or log of one; pause (a queued one is held), resume, cancel; stopped: mark a lost "
    "one as cancelled; move in the queue; save: a checkpoint now; sample: pictures now; duplicate "
    "with other settings; continue: distill further what a job has written."
)
ABOUT = "List, inspect and control the workspace's jobs."
LIST_COLUMNS = ("id", "title", "state", "step", "total", "eta", "error")


def add_to(app: typer.Typer) -> None:
    app.command("jobs", short_help=ABOUT)(jobs_command)


def jobs_command(
    action: Annotated[str, typer.Argument(metavar="ACTION", help=HELP)] = "list",
    job: Annotated[str | None, typer.Argument(metavar="ID", help="A job's id or number.")] = None,
    place: Annotated[
        int, typer.Argument(metavar="PLACE", help="move: the new place in the queue; 0 is next.")
    ] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="duplicate, continue: another value of the spec; may be given several times.",
        ),
    ] = None,
    lines: Annotated[
        int, typer.Option(min=1, metavar="N", help="log: number of last lines to print.")
    ] = 50,
    as_json: AsJson = False,
    workspace: Workspace = None,
) -> None:
    """List, inspect and control the workspace's jobs."""
    store = Store(workspace)
    jobs.wake(store)
    if action == "list":
        listing = [summary(entry) for entry in jobs.list_jobs(store)]
        emit({"jobs": listing}, as_json, list_of_jobs)
        return
    if action not in (*ACTIONS, *COPIES, *OTHERS):
        raise BadInput(f"jobs {action}", KNOWN, "choose one")
    if job is None:
        raise BadInput(
            f"jobs {action} without an id", "a job's id or number", "see `workbench jobs`"
        )
    if action == "log":
        emit({"id": job, "log": jobs.log_tail(store, job, lines)}, as_json, lambda r: str(r["log"]))
        return
    if action == "move":
        entry = jobs.move(store, job, place)
    elif action in COPIES:
        entry = COPIES[action](store, job, job_control.parse_changes(changes or []))
    else:
        entry = ACTIONS[action](store, job)
    facts = summary(entry)
    if action == "show":
        facts |= {"folder": str(entry.folder), "spec": entry.spec, "result": entry.result}
    emit(facts, as_json, job_page)


def summary(job: jobs.Job) -> dict[str, Any]:
    facts = job.model_dump(mode="json", exclude={"spec", "folder"})
    return {**facts, "silence": job.silence}


def list_of_jobs(result: dict[str, Any]) -> str:
    if not result["jobs"]:
        return "no jobs"
    rows = []
    for row in result["jobs"]:
        first_line = (row["error"] or row["silence"]).partition("\n")[0]
        rows.append({**row, "error": first_line[:80]})
    return table(rows, LIST_COLUMNS)


def job_page(result: dict[str, Any]) -> str:
    times = {key: date(result[key]) for key in ("created", "started", "ended")}
    return page({**result, **times})
