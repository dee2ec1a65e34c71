"""Page "Jobs": what runs, what waits, how it ended. Everything shown comes from disk at each look;
this page holds no state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from .. import charts
from ..records import BadInput
from ..workspace import jobs
from ..workspace.jobs import Job
from ..workspace.store import Store
from .components import QUIET, job_list, loss_curve
from .recovery_panel import RecoveryPanel
from .text import clock, duration, notice, problem

ENDED = ("done", "failed", "cancelled", "lost")
MOST = 4000  # points in one answer; a longer history is thinned


class JobsPage:
    def __init__(self, store: Store):
        self.store = store

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.list = job_list(elem_id="jobs")
            with gr.Column(scale=3, min_width=300):
                self.head = gr.HTML(elem_id="job-head")
                with gr.Row(elem_classes="wb-bar"):
                    self.pause = gr.Button(
                        "Pause", elem_id="job-pause", size="sm", min_width=70, interactive=False
                    )
                    self.resume = gr.Button(
                        "Resume", elem_id="job-resume", size="sm", min_width=70, interactive=False
                    )
                    self.cancel = gr.Button(
                        "Cancel",
                        elem_id="job-cancel",
                        size="sm",
                        min_width=70,
                        variant="stop",
                        interactive=False,
                    )
                    self.up = gr.Button(
                        "Move up", elem_id="job-up", size="sm", min_width=70, interactive=False
                    )
                    self.stopped = gr.Button(
                        "Mark as stopped",
                        elem_id="job-stopped",
                        size="sm",
                        min_width=70,
                        interactive=False,
                    )
                self.said = gr.HTML(elem_id="job-message")
                self.scale = gr.Checkbox(
                    True, label="Logarithmic loss", elem_id="log-y", container=False
                )

                # Gradio marks the function, which a bound method does not allow
                def tail(asked: Any) -> dict[str, Any]:
                    return self.tail(asked)

                self.curve = loss_curve(tail, elem_id="curve")
                self.recovery = RecoveryPanel(self.store)
                self.recovery.build()
                self.log = gr.Textbox(
                    label="Log",
                    lines=10,
                    max_lines=14,
                    elem_id="job-log",
                    interactive=False,
                    autoscroll=True,
                )
                with gr.Accordion("Specification", open=False):
                    self.spec = gr.Code(language="yaml", elem_id="job-spec", interactive=False)
        # a preference, no secret
        self.chosen = gr.BrowserState(None, storage_key="dit-workbench-job", secret="job")
        self.timer = gr.Timer(1.5)

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks) -> None:
        buttons = [self.pause, self.resume, self.cancel, self.up, self.stopped]
        shown = [self.list, self.head, self.log, *buttons]
        demo.load(self.on_load, [self.chosen, self.scale], [self.curve, self.spec, *shown], **QUIET)
        self.list.select(
            self.on_select,
            [self.list, self.scale],
            [self.chosen, self.curve, self.spec, self.said, *shown],
            trigger_mode="always_last",
            **QUIET,
        )
        self.recovery.wire(demo, self.list)
        self.timer.tick(
            self.on_tick,
            [self.list, self.log, self.scale],
            [self.curve, self.spec, *shown],
            **QUIET,
        )
        self.scale.input(
            lambda log, at: {"job": chosen_id(at), "log": bool(log)},
            [self.scale, self.list],
            self.curve,
            **QUIET,
        )
        actions = (
            (self.pause, jobs.pause),
            (self.resume, jobs.resume),
            (self.cancel, jobs.cancel),
            (self.stopped, jobs.mark_stopped),
        )
        for button, act in actions:
            button.click(
                self.action(act), [self.list, self.scale], [self.said, self.curve, *shown], **QUIET
            )
        self.up.click(
            self.action(move_up), [self.list, self.scale], [self.said, self.curve, *shown], **QUIET
        )

    # --- handlers ---------------------------------------------------------------------------------

    def tail(self, asked: Any) -> dict[str, Any]:
        """New points of a job's curve behind the browser's cursor (not through Gradio's queue: one
        small request a second).
        """
        try:
            job = jobs.show(self.store, str(asked["job"]))
            after = jobs.Cursor.parse(asked["after"])
            lines, cursor = jobs.metrics(self.store, job.id, after)
        except (BadInput, KeyError, TypeError):
            return {"rows": [], "after": 0, "ended": True, "restart": False}
        stride = max(1, len(lines) // MOST)
        return {
            "rows": charts.curve_rows(lines[::stride]),
            "after": cursor,
            "ended": job.state in ENDED,
            "restart": after == jobs.Cursor(),
        }

    def on_load(self, chosen: str | None, log: bool) -> list[Any]:
        jobs.wake(self.store)
        return self.select(chosen, log)

    def select(self, chosen: str | None, log: bool) -> list[Any]:
        """Show one job; the newest where the wanted one is gone."""
        found = jobs.list_jobs(self.store)
        job = next((j for j in found if j.id == chosen), None) or (found[0] if found else None)
        spec = (
            (job.folder / "spec.yaml").read_text(encoding="utf-8")
            if job and (job.folder / "spec.yaml").exists()
            else ""
        )
        return [{"job": job.id if job else None, "log": bool(log)}, spec, *self.shown(found, job)]

    def on_select(self, value: Any, log: bool) -> list[Any]:
        out = self.select(chosen_id(value), log)
        return [out[0]["job"], out[0], out[1], "", *out[2:]]

    def shown(self, found: list[Job], job: Job | None) -> list[Any]:
        rows = [
            {"id": j.id, "title": j.title, "state": j.state, "share": share(j), "note": note(j)}
            for j in found[:200]
        ]
        return [
            {"jobs": rows, "selected": job.id if job else None},
            head(job),
            jobs.log_tail(self.store, job.id, 60) if job else "",
            *buttons(job),
        ]

    def on_tick(self, value: Any, log: str, log_scale: bool) -> list[Any]:
        """Look again; send only what changed. A new job is shown unless the one on screen still
        runs.
        """
        jobs.wake(self.store)
        found = jobs.list_jobs(self.store)
        wanted = chosen_id(value)
        job = next((j for j in found if j.id == wanted), None)
        known = (
            {row.get("id") for row in value.get("jobs") or []} if isinstance(value, dict) else set()
        )
        if found and (job is None or (found[0].id not in known and job.state not in jobs.ACTIVE)):
            return self.select(found[0].id, log_scale)
        now = self.shown(found, job)
        return [
            gr.skip(),
            gr.skip(),
            gr.skip() if now[0] == value else now[0],
            now[1],
            gr.skip() if now[2] == log else now[2],
            *now[3:],
        ]

    def action(self, act: Callable[[Store, str], Job]) -> Callable[[Any, bool], list[Any]]:
        def handler(value: Any, log: bool) -> list[Any]:
            said = ""
            try:
                job = act(self.store, str(chosen_id(value)))
                said = notice(f"{job.title} is {job.state}.")
            except BadInput as error:
                said = problem(str(error))
            out = self.select(chosen_id(value), log)
            return [said, out[0], *out[2:]]

        return handler


def chosen_id(value: Any) -> str | None:
    found = value.get("selected") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def move_up(store: Store, job: str) -> Job:
    return jobs.move(store, job, max(0, (jobs.show(store, job).place or 0) - 1))


def share(job: Job) -> float:
    if job.state == "done":
        return 1.0
    return min(1.0, job.step / job.total) if job.total else 0.0


def note(job: Job) -> str:
    """One short line in the list."""
    if job.state in ("running", "stopping"):
        left = f", {duration(job.eta)} left" if job.eta is not None else ""
        return f"{job.step} of {job.total}{left}" if job.total else "starting"
    if job.state == "queued":
        return f"place {(job.place or 0) + 1} in the queue"
    if job.state in ("failed", "lost"):
        return job.error.splitlines()[0][:90] if job.error else job.state
    return f"{clock(job.ended)}, took {duration(took(job))}" if job.ended else clock(job.created)


def took(job: Job) -> float | None:
    return (job.ended or time.time()) - job.started if job.started else None


def head(job: Job | None) -> str:
    """The selected job: state, progress, times, and why it failed."""
    if job is None:
        return "<div class='wb-notice'>No job is selected.</div>"
    facts = [f"job {job.id}", f"on {job.device}", f"launched {clock(job.created)}"]
    if job.started:
        facts.append(f"started {clock(job.started)}, {duration(took(job))}")
    if job.state == "running" and job.eta is not None:
        facts.append(f"{duration(job.eta)} left")
    if job.attempt > 1:
        facts.append(f"attempt {job.attempt}")
    told = f"{job.step} of {job.total}" if job.total else ""
    why = f"<pre class='wb-error'>{escape(job.error)}</pre>" if job.error else ""
    lost = (
        "<p>Nobody saw it end: it is not done. Resume continues from its last checkpoint.</p>"
        if job.state == "lost"
        else ""
    )
    title = escape(job.title)
    return (
        f"<div class='job-head'><h3 title='{title}'><span class='badge "
        f"{job.state}'>{job.state}</span> {title}</h3>"
        f"<div class='job-bar big' role='progressbar' aria-valuenow='{100 * share(job):.0f}' "
        f"aria-valuemin='0' aria-valuemax='100'>"
        f"<i class='{job.state}' style='width:{100 * share(job):.1f}%'></i></div>"
        f"<p>{escape(told)} "
        f"{escape(job.message)}</p><small>{escape(' · '.join(facts))}</small>{lost}{why}</div>"
    )


def buttons(job: Job | None) -> list[Any]:
    """Pause, resume, cancel, move up, mark as stopped: which make sense now."""
    state = job.state if job else ""
    able = (
        state in ("running", "queued"),
        bool(job and job.resumable),
        state in ("running", "queued", "stopping", "paused"),
        state == "queued" and bool(job and job.place),
        state in ("lost", "failed"),
    )
    return [gr.Button(interactive=on) for on in able]
