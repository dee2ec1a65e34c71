"""A job in a notebook: its progress, losses and newest picture, live, with buttons that steer it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython.display import Javascript

from .. import charts
from ..records import BadInput
from ..specs import VERBS
from ..workspace import job_control, jobs
from ..workspace.notices import sentence
from ..workspace.store import Store
from .inputs import chart_widget

MOST_POINTS = 2000  # a longer history is thinned
ACTIONS: dict[str, Callable[[Store, str], jobs.Job]] = {
    "pause": jobs.pause,
    "resume": jobs.resume,
    "cancel": jobs.cancel,
    "save": job_control.save_now,
    "sample": job_control.sample_now,
}
TOOLTIPS = {
    "pause": "write a checkpoint, stop, free the device",
    "resume": "go on from the last checkpoint",
    "cancel": "stop for good",
    "save": "a checkpoint now",
    "sample": "pictures of the student now",
}


def watch(
    job: jobs.Job | str, workspace: Path | str | None = None, *, every: float = 1.0
) -> Watcher:
    """A job's state and loss curve, live while the notebook's kernel is idle; `.wait()` follows it
    to its end. `every`: seconds between looks.
    """
    if isinstance(job, jobs.Job):
        return Watcher(Store(job.folder.parents[1]), job.id, every)
    return Watcher(Store(workspace), job, every)


class Watcher(widgets.VBox):
    """A job's title, progress bar, buttons, losses, newest picture, and why it failed.

    What the buttons do has methods, too: `act("pause")`, and so on for each of ACTIONS.
    """

    def __init__(self, store: Store, job: str, every: float):
        self.store = store
        self.job = jobs.show(store, job).id
        self.every = every
        self.metrics: list[dict[str, Any]] = []
        self.cursor = jobs.Cursor()
        self.head = widgets.HTML()
        self.error = widgets.HTML()
        self.notice = widgets.Output()
        self.bar = widgets.FloatProgress(min=0, max=1, layout={"width": "100%"})
        self.curve = chart_widget(charts.curve_chart([]))
        self.buttons = {name: self.button(name) for name in ACTIONS}
        self.picture = widgets.VBox()
        self.shown: Path | None = None  # the picture in it
        tools = widgets.HBox([*self.buttons.values()])
        parts = [self.head, self.bar, tools, self.error, self.curve, self.picture, self.notice]
        super().__init__(parts)
        self.refresh()
        with suppress(RuntimeError):  # no kernel around it: `wait` looks instead
            self.task = asyncio.get_running_loop().create_task(self.follow())

    def refresh(self) -> jobs.Job:
        """Look once; only new points are read."""
        job = jobs.show(self.store, self.job)
        new, self.cursor = jobs.metrics(self.store, self.job, self.cursor, MOST_POINTS)
        if new:
            # a resumed run goes back to its checkpoint
            earlier = [row for row in self.metrics if row["step"] < new[0]["step"]]
            self.metrics = earlier + new
            if len(self.metrics) > 4 * MOST_POINTS:  # of days: memory stays bounded
                self.metrics = self.metrics[::2]
            stride = max(1, len(self.metrics) // MOST_POINTS)
            self.curve.chart = charts.curve_chart(charts.curve_rows(self.metrics[::stride]))
        self.bar.value = share(job)
        progress = f"{job.state}, {job.step} of {job.total} {escape(job.message)}"
        self.head.value = f"<b>{escape(job.title)}</b>: {progress}"
        self.error.value = ""
        if job.error:
            self.error.value = f"<pre>{escape(job.error)}</pre>"
        self.show_buttons(job)
        self.show_picture(job)
        return job

    # --- steering ---------------------------------------------------------------------------------

    def button(self, action: str) -> widgets.Button:
        made = widgets.Button(description=action, tooltip=TOOLTIPS[action])
        made.layout.width = "80px"
        made.on_click(lambda _: self.on_button(action))
        return made

    def act(self, action: str) -> jobs.Job:
        """Pause, resume, cancel, save or sample. Raises BadInput where the job's state forbids it."""
        ACTIONS[action](self.store, self.job)
        job = self.refresh()
        if action == "resume":
            with suppress(RuntimeError):
                self.task = asyncio.get_running_loop().create_task(self.follow())
        return job

    def on_button(self, action: str) -> None:
        try:
            self.act(action)
        except BadInput as error:
            self.error.value = f"<pre>{escape(str(error))}</pre>"

    def show_buttons(self, job: jobs.Job) -> None:
        """Only what can be done to the job now can be pressed."""
        running = job.state == "running"
        requests = VERBS[job.kind].requests if job.kind in VERBS else ()
        able = {
            "pause": job.state in ("queued", "running"),
            "resume": job.resumable,
            "cancel": job.state in (*jobs.ACTIVE, "paused"),
            "save": running and "save" in requests,
            "sample": running and "sample" in requests,
        }
        for name, button in self.buttons.items():
            button.disabled = not able[name]

    def show_picture(self, job: jobs.Job) -> None:
        """The newest picture that the job has left, where it leaves any."""
        found = sorted(
            (job.folder / "samples").glob("*.png"), key=lambda file: file.stat().st_mtime
        )
        if found and found[-1] != self.shown:
            self.shown = found[-1]
            image = widgets.Image(value=self.shown.read_bytes(), layout={"max_width": "100%"})
            self.picture.children = [widgets.Label(self.shown.stem), image]

    # --- following --------------------------------------------------------------------------------

    async def follow(self) -> None:
        job = self.refresh()
        was_active = job.state in jobs.ACTIVE
        while job.state in jobs.ACTIVE:
            await asyncio.sleep(self.every)
            job = self.refresh()
        if was_active:
            self.notice.append_display_data(Javascript(desktop_notice(job)))

    def wait(self, timeout: float = 24 * 3600) -> Any:
        """Follow the job to its end and return its result. `timeout` in seconds.

        Raises RuntimeError where it does not end as done, or not in time.
        """
        deadline = time.monotonic() + timeout
        job = self.refresh()
        while job.state in jobs.ACTIVE:
            if time.monotonic() > deadline:
                raise RuntimeError(f"job {job.id} is still {job.state} after {timeout:g} s")
            time.sleep(min(self.every, 0.5))
            job = self.refresh()
        if job.state != "done":
            raise RuntimeError(f"job {job.id} is {job.state}: {job.error}")
        return job.result


def share(job: jobs.Job) -> float:
    """How much of the job is done, 0 to 1."""
    if job.state == "done":
        return 1.0
    return job.step / max(1, job.total)


def desktop_notice(job: jobs.Job) -> str:
    """JavaScript that says on the desktop how a job has ended, where the user lets the page do so."""
    text = json.dumps(sentence(job))
    return (
        f"if (window.Notification) Notification.requestPermission()"
        f".then(answer => answer === 'granted' && new Notification({text}));"
    )
