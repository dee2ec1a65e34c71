"""A job in words: its line in the list, and the head above its loss."""

from __future__ import annotations

import time
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from ..charts import number
from ..workspace import chains
from ..workspace.chains import Chain
from ..workspace.job_files import read_json
from ..workspace.jobs import Job
from .text import clock, duration, figure, notice

LOST = "Its process vanished, so it is not done. Resume continues from its last checkpoint."


def spec_text(job: Job | None) -> str:
    """The job's spec.yaml."""
    if job is None or not (job.folder / "spec.yaml").exists():
        return ""
    return (job.folder / "spec.yaml").read_text(encoding="utf-8", errors="replace")


def list_row(job: Job) -> dict[str, Any]:
    """A job in the list, as joblist.js draws it."""
    return {
        "id": job.id,
        "title": job.title,
        "state": job.state,
        "share": share(job),
        "note": note(job),
    }


def share(job: Job) -> float:
    """How much of the job is done, 0 to 1."""
    if job.state == "done":
        return 1.0
    return min(1.0, job.step / max(1, job.total))


def note(job: Job) -> str:
    """One short line in the list."""
    if job.silence:
        return job.silence
    if job.state in ("running", "stopping"):
        if not job.total:
            return "starting"
        return ", ".join([progress_of(job), *time_left(job)])
    if job.state == "queued" and job.error:
        return job.error[:90]
    if job.state == "queued":
        return f"place {(job.place or 0) + 1} in the queue"
    if job.state in ("failed", "lost", "damaged"):
        return (job.error or job.state).splitlines()[0][:90]
    if job.ended:
        took = f"{clock(job.ended)}, took {duration(run_time(job))}"
        return ", ".join([took, *figures(job.folder, job.ended)])
    return clock(job.created)


@lru_cache(maxsize=1024)
def figures(folder: Path, ended: float) -> tuple[str, ...]:
    """What a job that ended then has to show in its list: steps and loss of a distillation."""
    result = read_json(folder / "result.json")
    if not isinstance(result, dict) or not number(result.get("last_loss")):
        return ()
    return f"{result.get('steps')} steps", f"loss {figure(result['last_loss'])}"


def progress_of(job: Job) -> str:
    """12 of 300; empty before the job knows."""
    if not job.total:
        return ""
    return f"{job.step} of {job.total}"


def time_left(job: Job) -> list[str]:
    """The estimated time, where there is an estimate."""
    if job.eta is None:
        return []
    return [f"{duration(job.eta)} left"]


def run_time(job: Job) -> float | None:
    """Seconds since the start, or from start to end; None where it has not started."""
    if not job.started:
        return None
    return (job.ended or time.time()) - job.started


def head(job: Job | None) -> str:
    """The selected job: state, progress, times, and why it failed."""
    if job is None:
        return notice("No job is selected.")
    title = escape(job.title)
    percent = 100 * share(job)
    parts = [
        f"<h2 title='{title}'><span class='badge {job.state}'>{job.state}</span> {title}</h2>",
        f"<div class='job-bar big' role='progressbar' aria-label='progress' aria-valuenow='{percent:.0f}' "
        "aria-valuemin='0' aria-valuemax='100'>"
        f"<i class='{job.state}' style='width:{percent:.1f}%'></i></div>",
        f"<p>{escape(progress_of(job))} {escape(job.message)}</p>",
        f"<small>{escape(' · '.join(times(job)))}</small>",
    ]
    if job.silence:
        parts.append(f"<p>{escape(job.silence)}</p>")
    if job.state == "lost":
        parts.append(f"<p>{LOST}</p>")
    if job.error:
        parts.append(f"<pre class='wb-error'>{escape(job.error)}</pre>")
    return f"<div class='job-head'>{''.join(parts)}</div>"


def times(job: Job) -> list[str]:
    """Number, device, when it was submitted and started, what is left."""
    lines = [f"job {job.id}", f"on {job.device}", f"submitted {clock(job.created)}"]
    if job.started:
        lines.append(f"started {clock(job.started)}, {duration(run_time(job))}")
    if job.state == "running":
        lines += time_left(job)
    if job.attempt > 1:
        lines.append(f"attempt {job.attempt}")
    return lines


# --- the list -------------------------------------------------------------------------------------

HEADINGS = ("Running", "Queue, the next one first", "Paused", "Ended, the newest first")
GROUPS = {"running": 0, "stopping": 0, "queued": 1, "paused": 2}  # the place of a state's heading
ENDED = 3


def list_rows(listed: list[Job], most: int) -> list[dict[str, Any]]:
    """The list as joblist.js draws it, each row with the heading that it stands under: what runs, the
    queue in its order, what is paused, and what has ended.

    A chain is one row, behind which its links follow, to be unfolded. After `most` rows the others,
    which ended first, are left out.
    """
    known = chains.chains_of(listed)
    entries: list[Job | Chain] = [job for job in listed if not job.chain]
    entries += known.values()
    rows: list[dict[str, Any]] = []
    for entry in sorted(entries, key=order):
        if len(rows) >= most:
            break
        heading = HEADINGS[GROUPS.get(entry.state, ENDED)]
        if isinstance(entry, Job):
            rows.append({**list_row(entry), "heading": heading})
            continue
        rows.append({**chain_row(entry), "heading": heading})
        rows += [{**list_row(link), "of": entry.id} for link in entry.jobs]
    return rows


def order(entry: Job | Chain) -> tuple[int, float]:
    """Where a job or a chain stands in the list: less is further up."""
    group = GROUPS.get(entry.state, ENDED)
    members = [entry] if isinstance(entry, Job) else entry.jobs
    if group == GROUPS["queued"]:
        return group, min(job.place for job in members if job.place is not None)
    if group == GROUPS["running"]:
        return group, min(job.started or job.created for job in members)
    return group, -max(job.ended or job.created for job in members)


def chain_row(chain: Chain) -> dict[str, Any]:
    done = f"{chain.step} of {chain.total} jobs are done"
    return {
        "id": chain.id,
        "title": chain.title,
        "state": chain.state,
        "share": chain.step / chain.total,
        "note": chain.error.partition("\n")[0][:90] or done,
        "links": chain.total,
    }
