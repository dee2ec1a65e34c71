"""Page "Jobs": what runs, what waits, how it ended.

Everything shown is read from disk each time; this page holds no state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.blocks import Block

from .. import charts
from ..records import BadInput
from ..workspace import jobs
from ..workspace.jobs import Job
from ..workspace.store import Store
from .components import LAST, QUIET, job_list, loss_curve
from .forms import Changes, Fields, connect
from .recovery_panel import RecoveryPanel
from .text import clock, duration, notice, problem

ENDED = ("done", "failed", "cancelled", "lost", "damaged")
MOST_POINTS = 4000  # in one response; a longer history is thinned
MOST_JOBS = 200  # in the list
LOG_LINES = 60
BUTTON_STATES = {  # button -> states of a job in which it makes sense
    "pause": ("running", "queued"),
    "resume": ("paused", "failed", "cancelled", "lost"),
    "cancel": ("running", "queued", "stopping", "paused"),
    "up": ("queued",),
    "stopped": ("lost", "failed"),
}
LOST = "Its process vanished, so it is not done. Resume continues from its last checkpoint."


@dataclass(frozen=True)
class JobsForm:
    """jobs: the list's value {jobs, selected}. remembered: the job this browser looked at last."""

    jobs: object = None
    log: str = ""
    log_scale: bool = True
    remembered: object = None

    @property
    def selected(self) -> str | None:
        if not isinstance(self.jobs, dict):
            return None
        job = self.jobs.get("selected")
        if not isinstance(job, str):
            return None
        return job

    @property
    def listed(self) -> set[str]:
        """Ids of the jobs in the list."""
        if not isinstance(self.jobs, dict):
            return set()
        return {row.get("id") for row in self.jobs.get("jobs") or []}


class JobsPage:
    def __init__(self, store: Store):
        self.store = store
        self.recovery = RecoveryPanel(store)

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.list = job_list(elem_id="jobs")
            with gr.Column(scale=3, min_width=300):
                self.build_job()
        # a preference, not a secret
        self.remembered = gr.BrowserState(None, storage_key="dit-workbench-job", secret="job")
        self.timer = gr.Timer(1.5)

    def build_job(self) -> None:
        """The selected job: its head, buttons, loss, log and spec."""
        self.head = gr.HTML(elem_id="job-head")
        with gr.Row(elem_classes="wb-bar"):
            self.buttons = {
                "pause": job_button("Pause", "job-pause"),
                "resume": job_button("Resume", "job-resume"),
                "cancel": job_button("Cancel", "job-cancel", variant="stop"),
                "up": job_button("Move up", "job-up"),
                "stopped": job_button("Mark as stopped", "job-stopped"),
            }
        self.message = gr.HTML(elem_id="job-message")
        self.log_scale = gr.Checkbox(
            True, label="Logarithmic scale", elem_id="log-y", container=False
        )

        def tail(question: Any) -> dict[str, Any]:  # Gradio sets an attribute: no bound method
            return self.tail(question)

        self.curve = loss_curve(tail, elem_id="curve")
        self.recovery.build()
        self.log = gr.Textbox(
            label="Log",
            lines=10,
            max_lines=14,
            elem_id="job-log",
            interactive=False,
            autoscroll=True,
        )
        with gr.Accordion("Spec", open=False):
            self.spec = gr.Code(language="yaml", elem_id="job-spec", interactive=False)

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks) -> None:
        form = [
            Fields(
                JobsForm,
                jobs=self.list,
                log=self.log,
                log_scale=self.log_scale,
                remembered=self.remembered,
            )
        ]
        outputs: dict[str, Block] = {
            "jobs": self.list,
            "head": self.head,
            "log": self.log,
            "curve": self.curve,
            "spec": self.spec,
            "message": self.message,
            **self.buttons,
        }
        connect([demo.load], self.on_load, form, outputs, **QUIET)
        selected = {**outputs, "remembered": self.remembered}
        connect([self.list.select], self.on_select, form, selected, **LAST)
        connect([self.timer.tick], self.on_tick, form, outputs, **QUIET)
        connect([self.log_scale.input], self.on_scale, form, outputs, **QUIET)
        actions = {
            "pause": jobs.pause,
            "resume": jobs.resume,
            "cancel": jobs.cancel,
            "up": move_up,
            "stopped": jobs.mark_stopped,
        }
        for name, action in actions.items():
            connect([self.buttons[name].click], self.handler(action), form, outputs, **QUIET)
        self.recovery.wire(demo, self.list)

    # --- handlers ---------------------------------------------------------------------------------

    def tail(self, question: Any) -> dict[str, Any]:
        """New points of a job's curve behind the browser's cursor: one small request a second, not
        through Gradio's queue. `question`: {job, after}.
        """
        try:
            job = jobs.show(self.store, str(question["job"]))
            after = jobs.Cursor.parse(question["after"])
        except (BadInput, KeyError, TypeError):
            return {"rows": [], "after": 0, "ended": True, "restart": False}
        lines, cursor = jobs.metrics(self.store, job.id, after)
        stride = max(1, len(lines) // MOST_POINTS)
        return {
            "rows": charts.curve_rows(lines[::stride]),
            "after": cursor,
            "ended": job.state in ENDED,
            "restart": after == jobs.Cursor(),
        }

    def on_load(self, form: JobsForm) -> Changes:
        jobs.wake(self.store)
        return self.show(form.remembered, form)

    def on_select(self, form: JobsForm) -> Changes:
        changes = self.show(form.selected, form)
        return {**changes, "remembered": changes["curve"]["job"], "message": ""}

    def on_scale(self, form: JobsForm) -> Changes:
        """Another scale of the loss."""
        return {"curve": {"job": form.selected, "log": bool(form.log_scale)}}

    def show(self, chosen: object, form: JobsForm) -> Changes:
        """One job; the newest where that one no longer exists."""
        listed = jobs.list_jobs(self.store)
        job = by_id(listed, chosen)
        if job is None and listed:
            job = listed[0]
        return {
            "curve": {"job": id_of(job), "log": bool(form.log_scale)},
            "spec": spec_text(job),
            **self.about(listed, job),
        }

    def about(self, listed: list[Job], job: Job | None) -> Changes:
        """The list, and the head, log and buttons of one job."""
        rows = [list_row(each) for each in listed[:MOST_JOBS]]
        return {
            "jobs": {"jobs": rows, "selected": id_of(job)},
            "head": head(job),
            "log": self.log_of(job),
            **button_states(job),
        }

    def log_of(self, job: Job | None) -> str:
        if job is None:
            return ""
        return jobs.log_tail(self.store, job.id, LOG_LINES)

    def on_tick(self, form: JobsForm) -> Changes:
        """Look again; send only what has changed.

        A new job is shown, unless the one on screen is still active.
        """
        jobs.wake(self.store)
        listed = jobs.list_jobs(self.store)
        job = by_id(listed, form.selected)
        if listed:
            is_new = listed[0].id not in form.listed
            if job is None or (is_new and job.state not in jobs.ACTIVE):
                return self.show(listed[0].id, form)
        changes = self.about(listed, job)
        for name, value in (("jobs", form.jobs), ("log", form.log)):
            if changes[name] == value:
                del changes[name]
        return changes

    def handler(self, action: Callable[[Store, str], Job]) -> Callable[[JobsForm], Changes]:
        """The handler of a button that does something to the selected job."""

        def on_click(form: JobsForm) -> Changes:
            try:
                job = action(self.store, str(form.selected))
                message = notice(f"{job.title} is {job.state}.")
            except BadInput as error:
                message = problem(str(error))
            return {**self.show(form.selected, form), "message": message}

        return on_click


def by_id(listed: list[Job], job: object) -> Job | None:
    for each in listed:
        if each.id == job:
            return each
    return None


def id_of(job: Job | None) -> str | None:
    return None if job is None else job.id


def move_up(store: Store, job: str) -> Job:
    """One place forward in the queue."""
    place = jobs.show(store, job).place or 0
    return jobs.move(store, job, max(0, place - 1))


# --- a job in words -------------------------------------------------------------------------------


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
        return f"{clock(job.ended)}, took {duration(run_time(job))}"
    return clock(job.created)


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
        f"<h3 title='{title}'><span class='badge {job.state}'>{job.state}</span> {title}</h3>",
        f"<div class='job-bar big' role='progressbar' aria-valuenow='{percent:.0f}' "
        "aria-valuemin='0' aria-valuemax='100'>"
        f"<i class='{job.state}' style='width:{percent:.1f}%'></i></div>",
        f"<p>{escape(progress_of(job))} {escape(job.message)}</p>",
        f"<small>{escape(' · '.join(times(job)))}</small>",
    ]
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


def job_button(label: str, name: str, variant: Any = "secondary") -> gr.Button:
    return gr.Button(
        label, elem_id=name, size="sm", min_width=70, variant=variant, interactive=False
    )


def button_states(job: Job | None) -> Changes:
    """Which buttons make sense now."""
    enabled: set[str] = set()
    if job is not None:
        enabled = {name for name, states in BUTTON_STATES.items() if job.state in states}
        if job.state == "queued" and not job.place:  # it is the next one
            enabled.discard("up")
    return {name: gr.Button(interactive=name in enabled) for name in BUTTON_STATES}
