"""Page "Jobs": what runs, what waits, how it ended.

Everything shown is read from disk each time; this page holds no state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr
from gradio.blocks import Block

from ..records import BadInput
from ..specs import VERBS
from ..workspace import job_control, jobs, notices
from ..workspace.jobs import Job
from ..workspace.store import Store
from . import curve_stream
from .access import Access
from .address import AT_LOAD, Address, Place, unknown
from .components import LAST, QUIET, job_list, loss_curve
from .forms import Changes, Fields, Readable, connect
from .job_words import head, list_rows, spec_text
from .pulse import Pulse
from .recovery_panel import RecoveryPanel
from .text import notice, problem

MOST_JOBS = 200  # in the list
LOG_LINES = 60
BUTTON_STATES = {  # button -> states of a job in which it makes sense
    "pause": ("running", "queued"),
    "resume": ("paused", "failed", "cancelled", "lost"),
    "cancel": ("running", "queued", "stopping", "paused"),
    "up": ("queued",),
    "down": ("queued",),
    "save": ("running",),
    "sample": ("running",),
    "duplicate": ("queued", *jobs.ACTIVE, *jobs.RESUMABLE, "done"),
    "continue": ("done",),
    "stopped": ("lost", "failed"),
}


@dataclass(frozen=True)
class JobsForm:
    """jobs: the list's value {jobs, selected}. remembered: the job this browser looked at last.
    changes: lines of FIELD=VALUE.
    """

    jobs: object = None
    log: str = ""
    remembered: object = None
    changes: object = ""

    @property
    def selected(self) -> str | None:
        if not isinstance(self.jobs, dict):
            return None
        job = self.jobs.get("selected")
        if not isinstance(job, str):
            return None
        return job

    @property
    def states(self) -> dict[str, str]:
        """Id -> state of the jobs in the list, as the browser shows them."""
        if not isinstance(self.jobs, dict):
            return {}
        return {row.get("id"): row.get("state") for row in self.jobs.get("jobs") or []}

    @property
    def listed(self) -> set[str]:
        """Ids of the jobs in the list."""
        return set(self.states)


class JobsPage:
    def __init__(self, store: Store, access: Access | None = None):
        self.store = store
        self.access = access or Access(store)
        self.recovery = RecoveryPanel(store)

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.list = job_list(elem_id="jobs")
            with gr.Column(scale=3, min_width=300, elem_classes="wb-job"):
                self.build_job()
        # a preference, not a secret
        self.remembered = gr.BrowserState(None, storage_key="dit-workbench-job", secret="job")

    def build_job(self) -> None:
        """The selected job: its head, buttons, loss, log and spec."""
        self.head = gr.HTML(elem_id="job-head")
        with gr.Row(elem_classes="wb-bar"):
            self.buttons = {
                "pause": job_button("Pause", "job-pause"),
                "resume": job_button("Resume", "job-resume"),
                "cancel": job_button("Cancel", "job-cancel", variant="stop"),
                "up": job_button("Move up", "job-up"),
                "down": job_button("Move down", "job-down"),
                "save": job_button("Save now", "job-save"),
                "sample": job_button("Sample now", "job-sample"),
                "stopped": job_button("Mark stopped", "job-stopped"),
            }
        self.message = gr.HTML(elem_id="job-message")

        def tail(question: Any) -> dict[str, Any]:
            return curve_stream.points_after(self.store, question)

        def draw(question: Any) -> dict[str, Any]:
            return curve_stream.drawing(question)

        self.curve = loss_curve(tail, draw, elem_id="curve")
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
        with gr.Accordion("Run it again", open=False):
            self.changes = gr.Textbox(
                label="Changes",
                info="One FIELD=VALUE of the spec a line; outputs get new names.",
                placeholder="steps=200",
                lines=2,
                elem_id="job-changes",
            )
            with gr.Row():
                self.buttons["duplicate"] = job_button("Queue it again", "job-duplicate")
                self.buttons["continue"] = job_button("Distill its student further", "job-continue")

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks, address: Address, pulse: Pulse) -> None:
        form = [
            Fields(
                JobsForm,
                jobs=self.list,
                log=self.log,
                remembered=self.remembered,
                changes=self.changes,
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
        address.arrive(demo, self.on_address, form, outputs)
        address.step("job", self.list.select, self.list, "value?.selected || ''")
        address.keep("job", self.list.change, self.list, "value?.selected || ''")
        selected = {**outputs, "remembered": self.remembered}
        connect([self.list.select], self.on_select, form, selected, **LAST)
        news: list[Readable] = [address.input, *form]
        connect([pulse.event("jobs")], self.on_news, news, outputs, js=AT_LOAD, **LAST)
        actions: dict[str, Callable[[Store, str], Job]] = {
            "pause": jobs.pause,
            "resume": jobs.resume,
            "cancel": jobs.cancel,
            "up": partial(move_by, places=-1),
            "down": partial(move_by, places=1),
            "save": job_control.save_now,
            "sample": job_control.sample_now,
            "stopped": jobs.mark_stopped,
        }
        for name, action in actions.items():
            connect([self.buttons[name].click], self.handler(action), form, outputs, **QUIET)
        copies = {"duplicate": job_control.duplicate, "continue": job_control.continue_from}
        for name, copy in copies.items():
            connect([self.buttons[name].click], self.copier(copy), form, outputs, **QUIET)
        self.recovery.wire(demo, self.list)

    # --- handlers ---------------------------------------------------------------------------------

    def on_address(self, place: Place, form: JobsForm) -> Changes:
        """The job that an address names; where it names none, the one that was looked at last."""
        if place.number and not (place.tab == "jobs" and place.job):
            return {}  # Back or Forward to something else
        self.wake()
        changes = self.show(place.job or form.remembered, form)
        if place.job and changes["curve"]["job"] != place.job:
            changes["message"] = problem(str(unknown("job", place.job)))
        return changes

    def wake(self) -> None:
        """See to it that queued jobs have a worker."""
        if not self.access.read_only:
            jobs.wake(self.store)

    def on_select(self, form: JobsForm) -> Changes:
        changes = self.show(form.selected, form)
        return {**changes, "remembered": changes["curve"]["job"], "message": ""}

    def show(self, chosen: object, form: JobsForm) -> Changes:
        """One job; the newest where that one no longer exists."""
        listed = jobs.list_jobs(self.store)
        job = by_id(listed, chosen)
        if job is None and listed:
            job = listed[0]
        return {
            "curve": {"job": id_of(job)},
            "spec": spec_text(job),
            **self.about(listed, job),
        }

    def about(self, listed: list[Job], job: Job | None) -> Changes:
        """The list, and the head, log and buttons of one job."""
        rows = list_rows(listed, MOST_JOBS)
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

    def on_news(self, place: Place, form: JobsForm) -> Changes:
        """Something is new; where no job is shown yet, the one that the address names."""
        return self.on_address(place, form) if form.selected is None else self.on_tick(form)

    def on_tick(self, form: JobsForm) -> Changes:
        """Look again; send only what has changed.

        A new job is shown, unless the one on screen is still active.
        """
        self.wake()
        listed = jobs.list_jobs(self.store)
        for ended in just_ended(form.states, listed):
            toast(ended)
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
                self.access.check_change()
                job = action(self.store, str(form.selected))
                message = notice(f"{job.title} is {job.state}.")
            except BadInput as error:
                message = problem(str(error))
            return {**self.show(form.selected, form), "message": message}

        return on_click

    def copier(
        self, copy: Callable[[Store, str, dict[str, Any]], Job]
    ) -> Callable[[JobsForm], Changes]:
        """The handler of a button that makes a new job of the selected one; it is then shown."""

        def on_click(form: JobsForm) -> Changes:
            selected = form.selected
            try:
                lines = [line.strip() for line in str(form.changes or "").split("\n")]
                changes = job_control.parse_changes([line for line in lines if line])
                changes = self.opened(str(selected), changes)
                job = copy(self.store, str(selected), changes)
                selected = job.id
                message = notice(f"Job {job.id} is {job.state}.")
            except BadInput as error:
                message = problem(str(error))
            return {**self.show(selected, form), "message": message}

        return on_click

    def opened(self, job: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Changes of a job's spec, with no file that a browser may not open. Raises BadInput."""
        self.access.check_change()
        kind = jobs.show(self.store, job).kind
        if kind not in VERBS:  # of a plugin that is not loaded here: copying it says so
            return changes
        return self.access.opened(VERBS[kind].spec, changes)


def just_ended(shown: dict[str, str], listed: list[Job]) -> list[Job]:
    """The jobs that a browser shows as active and that have ended, as nobody asked them to."""
    return [job for job in listed if shown.get(job.id) in jobs.ACTIVE and job.state in notices.ENDS]


def toast(job: Job) -> None:
    """Say in the corner of the page how a job has ended."""
    show = gr.Info if job.state == "done" else gr.Warning
    show(escape(notices.sentence(job)))


def by_id(listed: list[Job], job: object) -> Job | None:
    for each in listed:
        if each.id == job:
            return each
    return None


def id_of(job: Job | None) -> str | None:
    return None if job is None else job.id


def move_by(store: Store, job: str, places: int) -> Job:
    """Some places back in the queue, or forward where negative."""
    place = jobs.show(store, job).place or 0
    return jobs.move(store, job, max(0, place + places))


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
        if job.kind != "distill":
            enabled.discard("continue")
        enabled -= set(job_control.REQUESTS) - requests_of(job)
    return {name: gr.Button(interactive=name in enabled) for name in BUTTON_STATES}


def requests_of(job: Job) -> set[str]:
    """What a job of this kind can be asked for while it runs."""
    if job.kind not in VERBS:  # of a plugin that is not loaded here
        return set()
    return set(VERBS[job.kind].requests)
