"""Notebook widgets on the app's own charts: click a plan together, watch a job, look at a comparison. Offline in JupyterLab.

    from workbench import lab
    editor = lab.sensitivity(measured, teacher)   # click, shift-click or drag on the map; keep, drop, merge, undo
    editor.plan                                   # the plan as it stands
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import altair as alt
import ipywidgets as widgets
from altair.jupyter import JupyterChart

from . import charts, jobs, marks, plans
from .records import BadInput, Comparison, Plan, SensitivityMap, Teacher
from .store import Store

JupyterChart.enable_offline()  # before the first chart: Vega comes from vl-convert, nothing from a CDN

__all__ = ["Editor", "Viewer", "Watcher", "compare", "sensitivity", "watch"]


def sensitivity(measured: SensitivityMap | Path | str, teacher: Teacher | Path | str, plan: Plan | None = None, *, edit: str = "drop",
                weighting: str = "normalised", width: int = 760) -> Editor:
    """The map with a plan beneath it, to be edited by clicking. Records or their files."""
    measured = measured if isinstance(measured, SensitivityMap) else SensitivityMap.load(measured)
    teacher = teacher if isinstance(teacher, Teacher) else Teacher.load(teacher)
    return Editor(measured, teacher, plan, edit, weighting, width)


def watch(job: jobs.Job | str, workspace: Path | str | None = None, *, every: float = 1.0) -> Watcher:
    """A job's state and loss curve, live while the notebook's kernel is idle; `.wait()` follows it to its end."""
    if isinstance(job, jobs.Job):
        return Watcher(Store(job.folder.parents[1]), job.id, every)
    return Watcher(Store(workspace), job, every)


def compare(comparison: Path | str, width: int = 300) -> Viewer:
    """A finished comparison (its folder, or its comparison.json): pictures side by side, scores and cost beneath."""
    path = Path(comparison)
    return Viewer(path.parent if path.is_file() else path, width)


def chart_widget(chart: Any) -> JupyterChart:
    return alt.JupyterChart(chart, debounce_wait=200, max_wait=False, embed_options={"actions": False})


class Editor(widgets.VBox):
    """Map above, plan beneath. The plan's picture is a chart of its own, so that a mark does not draw the map again."""

    def __init__(self, measured: SensitivityMap, teacher: Teacher, plan: Plan | None, edit: str, weighting: str, width: int):
        self.measured, self.teacher, self.width = measured, teacher, width
        self.history: list[Plan] = [plans.check(plan or plans.identity(teacher), teacher)]
        self.selected: list[int] = []
        cells = charts.sensitivity_rows(measured, teacher, edit)
        if not cells:
            raise BadInput(f"the map has no edit {edit!r}", "one of " + ", ".join(measured.edits), "choose one")
        bars = charts.block_rows(plans.block_scores(measured, edit, weighting), teacher)
        weights = charts.weight_rows(plans.timestep_weights(measured, edit, weighting))
        self.map = chart_widget(charts.sensitivity_chart(teacher, cells, bars, weights, None, edit=edit, unit=measured.unit, params=True,
                                                         width=width))
        self.picture = chart_widget(self.drawn())
        self.map.selections.observe(self.on_select, ["pick", "box"])
        self.buttons = {name: widgets.Button(description=name, layout={"width": "80px"}) for name in (*marks.MARKS, "undo")}
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self.undo() if name == "undo" else self.mark(name))
        self.told, self.budget = widgets.HTML(), widgets.HTML()
        self.show()
        super().__init__([self.map, widgets.HBox([*self.buttons.values(), self.told]), self.picture, self.budget])

    @property
    def plan(self) -> Plan:
        return self.history[-1]

    def select(self, blocks: dict[str, list[int]]) -> None:
        """Select blocks by number (stack path -> blocks), as a click would."""
        start = charts.offsets(self.teacher)
        self.selected = [start[path] + block for path, numbers in blocks.items() for block in numbers]
        self.show()

    def on_select(self, _: Any) -> None:
        """Selection = clicked blocks and those the box touches."""
        selections: Any = self.map.selections
        picked = {int(row["at"]) for row in selections.pick.value or [] if "at" in row}
        low, high = (selections.box.value or {}).get("at", (0.0, 0.0))
        boxed = {at for at in range(len(charts.plan_rows(self.plan, self.teacher)["marks"])) if at + 1 > low and at < high}
        self.selected = sorted(picked | boxed)
        self.show()

    def mark(self, name: str) -> None:
        """Keep, drop or merge the selected blocks. What cannot be is said in one line; the plan stays."""
        start = charts.offsets(self.teacher)
        blocks = {s.path: [at - start[s.path] for at in self.selected if 0 <= at - start[s.path] < s.depth] for s in self.teacher.stacks}
        try:
            if not self.selected:
                raise BadInput("no block is selected", "a selection", "click or drag on the map")
            self.history.append(marks.edit(self.plan, self.teacher, blocks, name))
            self.show()
        except BadInput as error:
            self.show(str(error))

    def undo(self) -> None:
        if len(self.history) > 1:
            self.history.pop()
        self.show()

    def drawn(self) -> alt.VConcatChart:
        return charts.sensitivity_chart(self.teacher, [], [], [], charts.plan_rows(self.plan, self.teacher), width=self.width)

    def show(self, problem: str = "") -> None:
        """Repaint the plan, the selection and the budget."""
        rows = charts.plan_rows(self.plan, self.teacher)
        for row in rows["marks"]:
            row["selected"] = row["at"] in self.selected
        self.picture.chart = charts.sensitivity_chart(self.teacher, [], [], [], rows, width=self.width)
        chosen = ", ".join(str(row["block"]) for row in rows["marks"] if row["selected"])
        self.told.value = f"<b style='color:#d1495b'>{escape(problem)}</b>" if problem else f"selected: {chosen or 'nothing'}"
        info = plans.info(self.plan, self.teacher, self.measured, "uniform")
        depth = ", ".join(f"{path} {count}" for path, count in info["depth"].items())
        self.budget.value = (f"<b>{info['parameters'] / 1e6:.4g} M</b> parameters"
                             f" ({100 * info['ratio']:.0f} % of the teacher)"
                             f" · depth {escape(depth)} · bf16 {info['memory']['bf16'] / 1e6:.3g} MB"
                             f" · predicted error {info['predicted_error']:.2g} · predicted speed {info['predicted_speedup']:.2f}×")


class Watcher(widgets.VBox):
    """A job's progress and losses."""

    def __init__(self, store: Store, job: str, every: float):
        self.store, self.job, self.every = store, jobs.show(store, job).id, every
        self.lines: list[dict[str, Any]] = []
        self.cursor = 0
        self.head, self.why = widgets.HTML(), widgets.HTML()
        self.bar = widgets.FloatProgress(min=0, max=1, layout={"width": "100%"})
        self.curve = chart_widget(charts.curve_chart([]))
        super().__init__([self.head, self.bar, self.curve, self.why])
        self.refresh()
        with suppress(RuntimeError):  # no kernel around: `wait` looks instead
            self.task = asyncio.get_running_loop().create_task(self.follow())

    def refresh(self) -> jobs.Job:
        """Look once; only new points are read."""
        job = jobs.show(self.store, self.job)
        fresh, self.cursor = jobs.metrics(self.store, self.job, self.cursor)
        if fresh:
            self.lines = [line for line in self.lines if line["step"] < fresh[0]["step"]] + fresh  # a resumed run went back
            stride = max(1, len(self.lines) // 2000)
            self.curve.chart = charts.curve_chart(charts.curve_rows(self.lines[::stride]))
        self.bar.value = 1.0 if job.state == "done" else job.step / job.total if job.total else 0.0
        self.head.value = f"<b>{escape(job.title)}</b>: {job.state}, {job.step} of {job.total} {escape(job.message)}"
        self.why.value = f"<pre>{escape(job.error)}</pre>" if job.error else ""
        return job

    async def follow(self) -> None:
        while self.refresh().state in jobs.ACTIVE:
            await asyncio.sleep(self.every)

    def wait(self, timeout: float = 24 * 3600) -> Any:
        """Follow the job to its end and return its result. Raises RuntimeError where it did not end as done."""
        until = time.monotonic() + timeout
        while (job := self.refresh()).state in jobs.ACTIVE:
            if time.monotonic() > until:
                raise RuntimeError(f"job {job.id} is still {job.state} after {timeout:g} s")
            time.sleep(min(self.every, 0.5))
        if job.state != "done":
            raise RuntimeError(f"job {job.id} is {job.state}: {job.error}")
        return job.result


class Viewer(widgets.VBox):
    """A comparison: the same prompt and seed through every model."""

    def __init__(self, folder: Path, width: int):
        self.folder, self.width = folder, width
        self.comparison = Comparison.load(folder / "comparison.json")
        total = max((len(files) for files in self.comparison.images.values()), default=1)
        self.at = widgets.IntSlider(0, 0, max(0, total - 1), description="picture")
        self.pictures, self.caption = widgets.HBox(), widgets.HTML()
        self.at.observe(lambda _: self.show(), "value")
        self.show()
        rows = charts.score_rows(self.comparison)
        scores = [chart_widget(charts.score_chart(rows))] if rows else []
        super().__init__([self.at, self.caption, self.pictures, widgets.HTML(self.costs()), *scores])

    def show(self) -> None:
        seeds = max(1, len(self.comparison.seeds))
        prompt, seed = divmod(self.at.value, seeds)
        if prompt < len(self.comparison.prompts):
            self.caption.value = f"seed {self.comparison.seeds[seed]}: {escape(self.comparison.prompts[prompt])}"
        boxes = []
        for model, files in self.comparison.images.items():
            path = self.folder / files[self.at.value] if self.at.value < len(files) else None
            picture = widgets.Image(value=path.read_bytes(), width=self.width) if path and path.is_file() else widgets.Label("no picture")
            boxes.append(widgets.VBox([widgets.Label(model), picture]))
        self.pictures.children = boxes

    def costs(self) -> str:
        rows = charts.cost_rows(self.comparison)
        head = "".join(f"<th style='padding:2px 10px'>{escape(key)}</th>" for key in (rows[0] if rows else ()))
        body = ["".join(f"<td style='padding:2px 10px'>{shown(value)}</td>" for value in row.values()) for row in rows]
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{cells}</tr>' for cells in body)}</table>"


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else escape("–" if value is None else str(value))
