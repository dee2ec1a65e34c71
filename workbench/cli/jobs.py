"""`workbench jobs`: list, inspect and control the workspace's jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..records import BadInput
from ..workspace import chains, job_control, jobs
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
    job: Annotated[
        str | None, typer.Argument(metavar="ID", help="A job's id or number, or a chain's id.")
    ] = None,
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
        listed = jobs.list_jobs(store)
        listing = {
            "jobs": [summary(entry) for entry in listed],
            "chains": [chain_summary(chain) for chain in chains.chains_of(listed).values()],
        }
        emit(listing, as_json, list_of_jobs)
        return
    if action not in (*ACTIONS, *COPIES, *OTHERS):
        raise BadInput(f"jobs {action}", KNOWN, "choose one")
    if job is None:
        raise BadInput(
            f"jobs {action} without an id", "a job's id or number", "see `workbench jobs`"
        )
    if job.startswith("c") and job[1:].isdecimal():
        emit(chain_action(store, action, job), as_json, list_of_links)
        return
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


def chain_action(store: Store, action: str, chain: str) -> dict[str, Any]:
    """Show, pause, resume or cancel a chain; the facts of it and of its links."""
    if action == "show":
        found = chains.find(store, chain)
    elif action in chains.ACTIONS:
        found = chains.apply(store, chain, action)
    else:
        known = ", ".join(["show", *chains.ACTIONS])
        raise BadInput(f"jobs {action} of chain {chain}", known, "name one of its jobs")
    return {**chain_summary(found), "jobs": [summary(entry) for entry in found.jobs]}


def chain_summary(chain: chains.Chain) -> dict[str, Any]:
    facts = chain.model_dump(mode="json", exclude={"jobs"})
    return {**facts, "eta": None, "silence": "", "jobs": [job.id for job in chain.jobs]}


def list_of_links(result: dict[str, Any]) -> str:
    """A chain as a row, and its jobs below it."""
    return table([shortened(row) for row in [result, *result["jobs"]]], LIST_COLUMNS)


def summary(job: jobs.Job) -> dict[str, Any]:
    facts = job.model_dump(mode="json", exclude={"spec", "folder"})
    return {**facts, "silence": job.silence}


def list_of_jobs(result: dict[str, Any]) -> str:
    if not result["jobs"]:
        return "no jobs"
    singles = [row for row in result["jobs"] if not row["chain"]]
    rows = sorted([*singles, *result["chains"]], key=lambda row: row["created"], reverse=True)
    return table([shortened(row) for row in rows], LIST_COLUMNS)


def shortened(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the first line of its error."""
    first_line = (row["error"] or row["silence"]).partition("\n")[0]
    return {**row, "error": first_line[:80]}


def job_page(result: dict[str, Any]) -> str:
    times = {key: date(result[key]) for key in ("created", "started", "ended")}
    return page({**result, **times})
