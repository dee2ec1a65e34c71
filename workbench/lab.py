"""Notebook widgets on the app's own charts: look at maps, click a plan together, watch a job, look
at a comparison. Offline.

    from workbench import lab lab.block(measured, teacher, 12)                # one block over the
    timesteps and by its parts editor = lab.sensitivity(measured, teacher)     # click, shift-click
    or drag on the map; keep, drop, merge, single, parts, undo editor.plan
    # the plan as it stands
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, get_args

import altair as alt
import ipywidgets as widgets
from altair.jupyter import JupyterChart

from . import charts, plans
from .charts import view as look
from .charts.view import Look
from .plans.editing import marks, student_blocks
from .plans.editing.selection import edited_origin
from .records import BadInput, Card, Comparison, Init, Plan, SensitivityMap, Teacher
from .workspace import jobs
from .workspace.store import Store

# before the first chart: Vega comes from vl-convert, nothing from a CDN
JupyterChart.enable_offline()

__all__ = [
    "Editor",
    "Viewer",
    "Watcher",
    "block",
    "compare",
    "correlation",
    "difference",
    "edits",
    "picture",
    "recovery",
    "sensitivity",
    "stability",
    "watch",
]


def sensitivity(
    measured: SensitivityMap | Path | str,
    teacher: Teacher | Path | str,
    plan: Plan | None = None,
    *,
    edit: str = "drop",
    weighting: look.Weighting = "normalised",
    width: int = 760,
) -> Editor:
    """The map with a plan beneath it, to be edited by clicking. Records or their files; `weighting`
    may map timestep to weight.
    """
    return Editor(seen(measured, teacher, weighting), plan, edit, width)


def block(
    measured: SensitivityMap | Path | str,
    teacher: Teacher | Path | str,
    number: int,
    stack: str = "",
    *,
    weighting: look.Weighting = "normalised",
) -> widgets.HBox:
    """One block: its scores over the timesteps under every edit, and which of its parts carry them.
    Bands: one standard error.
    """
    view = seen(measured, teacher, weighting)
    path = view.teacher.stack(stack or view.teacher.stacks[0].path).path
    found = [look.block_chart(view, path, number), look.part_chart(view, path, number)]
    if not any(found):
        last = view.teacher.stack(path).depth - 1
        raise BadInput(
            f"the map has no score of {path} block {number}",
            f"blocks 0 to {last}",
            "choose another",
        )
    return widgets.HBox(
        [chart_widget(chart) for chart in found if chart is not None],
        layout={"flex_flow": "row wrap"},
    )


def edits(
    measured: SensitivityMap | Path | str,
    teacher: Teacher | Path | str,
    *,
    weighting: look.Weighting = "normalised",
    width: int = 760,
) -> JupyterChart:
    """Every edit of every block over all timesteps, on one colour scale."""
    chart = look.edits_chart(seen(measured, teacher, weighting), width=width)
    if chart is None:
        raise BadInput("the map has one edit", "several", "profile with --edits drop,merge,..")
    return chart_widget(chart)


def difference(
    one: SensitivityMap | Path | str,
    two: SensitivityMap | Path | str,
    teacher: Teacher | Path | str,
    edits: tuple[str, str] = ("drop", "drop"),
    *,
    weighting: look.Weighting = "normalised",
    width: int = 760,
) -> JupyterChart:
    """Where the first map under its edit scores higher than the second under its own; one map twice
    compares two edits.
    """
    first, second = seen(one, teacher, weighting), seen(two, teacher, weighting)
    return chart_widget(
        charts.difference_chart(
            first.teacher, look.difference_rows(first, second, edits), edits, width=width
        )
    )


def correlation(
    maps: SensitivityMap | Mapping[str, SensitivityMap],
    teacher: Teacher | Path | str,
    *,
    weighting: look.Weighting = "normalised",
) -> JupyterChart:
    """How far edits, metrics or maps put the blocks in the same order: Spearman's rank correlation."""
    named = maps if isinstance(maps, Mapping) else {"": maps}
    chart = look.correlation_chart(
        {name: seen(measured, teacher, weighting) for name, measured in named.items()}
    )
    if chart is None:
        raise BadInput("one order of blocks", "two edits or two maps", "give another map")
    return chart_widget(chart)


def picture(
    plan: Plan | Path | str, teacher: Teacher | Path | str, *, width: int = 760
) -> JupyterChart:
    """A plan drawn: teacher blocks above, student blocks below, spans between."""
    drawn, of = record(Plan, plan), record(Teacher, teacher)
    return chart_widget(
        charts.plan_picture_chart(charts.plan_picture_rows(plans.check(drawn, of), of), width=width)
    )


def recovery(
    what: SensitivityMap | Mapping[str, Any] | Path | str,
    teacher: Teacher | Path | str,
    measured: SensitivityMap | Path | str | None = None,
    *,
    stage: str | None = None,
    width: int = 760,
) -> JupyterChart:
    """Which blocks training repairs: each span before and after, over what its blocks score in the
    map `measured`.

    `what`: a distilled student's folder, a distillation's result (of its last stage unless `stage`
    names one), or a map of metric recovery.
    """
    found: Any = what
    if isinstance(what, Mapping):
        found = what.get("recoverability", [])
    elif not isinstance(what, SensitivityMap):
        folder = (Path(what) / "card.json").is_file()
        found = (
            Card.load(Path(what) / "card.json").metrics.get("recoverability", [])
            if folder
            else SensitivityMap.load(what)
        )
    below = record(SensitivityMap, measured) if measured is not None else None
    rows = charts.recovery_rows(found, record(Teacher, teacher), below, stage=stage)
    if not rows["spans"]:
        raise BadInput(
            "no span was measured before and after training",
            "a distilled student, or a map of metric recovery",
            "name one",
        )
    return chart_widget(charts.recovery_chart(rows, width=width))


def stability(measured: SensitivityMap | Path | str) -> str:
    """Whether the order of blocks would be the same with other prompts, in words."""
    return (
        record(SensitivityMap, measured).trust
        or "The record does not say how stable the order of blocks is."
    )


def watch(
    job: jobs.Job | str, workspace: Path | str | None = None, *, every: float = 1.0
) -> Watcher:
    """A job's state and loss curve, live while the notebook's kernel is idle; `.wait()` follows it
    to its end.
    """
    if isinstance(job, jobs.Job):
        return Watcher(Store(job.folder.parents[1]), job.id, every)
    return Watcher(Store(workspace), job, every)


def compare(comparison: Path | str, width: int = 300) -> Viewer:
    """A finished comparison (its folder, or its comparison.json): pictures side by side, scores and
    cost beneath.
    """
    path = Path(comparison)
    return Viewer(path.parent if path.is_file() else path, width)


def record(kind: Any, given: Any) -> Any:
    """A record, or the record of a file."""
    return given if isinstance(given, kind) else kind.load(given)


def seen(
    measured: SensitivityMap | Path | str, teacher: Teacher | Path | str, weighting: look.Weighting
) -> Look:
    if isinstance(weighting, str) and weighting not in plans.WEIGHTINGS:
        known = ", ".join(plans.WEIGHTINGS)
        raise BadInput(
            f"timestep weighting {weighting!r}",
            f"one of {known}, or timestep -> weight",
            "choose one",
        )
    return Look.of(record(Teacher, teacher), record(SensitivityMap, measured), weighting)


def chart_widget(chart: Any) -> JupyterChart:
    return alt.JupyterChart(
        chart, debounce_wait=200, max_wait=False, embed_options={"actions": False}
    )


class Editor(widgets.VBox):
    """Map above, plan beneath. The plan's picture is a chart of its own, so that a mark does not
    draw the map again.

    The controls under the map choose the edit shown and the colour scale; the row under the marks
    says what the selected student blocks are made of.
    """

    def __init__(self, view: Look, plan: Plan | None, edit: str, width: int):
        self.view, self.teacher, self.width = view, view.teacher, width
        self.history: list[Plan] = [plans.check(plan or plans.identity(view.teacher), view.teacher)]
        self.selected: list[int] = []
        if edit not in view.edits and edit != "drop":
            raise BadInput(
                f"the map has no edit {edit!r}", "one of " + ", ".join(view.edits), "choose one"
            )
        self.map = chart_widget(look.map_chart(view, edit, toggles=True, params=True, width=width))
        self.picture = chart_widget(self.drawn())
        self.map.selections.observe(self.on_select, ["pick", "box"])
        self.buttons = {
            name: widgets.Button(description=name, layout={"width": "80px"})
            for name in (*marks.MARKS, "undo")
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self.undo() if name == "undo" else self.mark(name))
        self.free = widgets.Button(description="free cut", layout={"width": "90px"})
        self.free.on_click(lambda _: self.cut_free())
        self.told, self.budget = widgets.HTML(), widgets.HTML()
        self.hand = Hand(self)
        self.show()
        super().__init__(
            [
                self.map,
                widgets.HBox([*self.buttons.values(), self.free, self.told]),
                self.hand,
                self.picture,
                self.budget,
            ]
        )

    @property
    def plan(self) -> Plan:
        return self.history[-1]

    @property
    def measured(self) -> SensitivityMap | None:
        return self.view.sensitivity

    # --- selecting --------------------------------------------------------------------------------

    def select(self, blocks: dict[str, list[int]]) -> None:
        """Select blocks by number (stack path -> blocks), as a click would."""
        start = charts.offsets(self.teacher)
        self.selected = [
            start[path] + block for path, numbers in blocks.items() for block in numbers
        ]
        self.show()

    def on_select(self, _: Any) -> None:
        """Selection = clicked blocks and those the box touches."""
        selections: Any = self.map.selections
        picked = {int(row["at"]) for row in selections.pick.value or [] if "at" in row}
        low, high = (selections.box.value or {}).get("at", (0.0, 0.0))
        boxed = {
            at
            for at in range(sum(stack.depth for stack in self.teacher.stacks))
            if at + 1 > low and at < high
        }
        self.selected = sorted(picked | boxed)
        self.show()

    @property
    def selection(self) -> dict[str, list[int]]:
        """Stack path -> selected blocks."""
        start = charts.offsets(self.teacher)
        return {
            s.path: [
                at - start[s.path] for at in self.selected if 0 <= at - start[s.path] < s.depth
            ]
            for s in self.teacher.stacks
        }

    # --- changing ---------------------------------------------------------------------------------

    def mark(self, name: str) -> None:
        """Keep, drop or merge the selected blocks. What cannot be is said in one line; the plan
        stays.
        """
        self.to(lambda: marks.edit(self.plan, self.teacher, self.selection, name))

    def change(self, **what: Any) -> None:
        """What the selected student blocks are made of: stream, init, gain, drop, restore
        (`student_blocks.change`).
        """
        self.to(lambda: student_blocks.change(self.plan, self.teacher, self.selection, **what))

    def cut_free(self) -> None:
        """Drop what nothing reads."""
        cut = plans.cut_free(self.plan, self.teacher)
        self.to(
            lambda: plans.check(
                cut.model_copy(update={"origin": edited_origin(self.plan)}), self.teacher
            ),
            selected=True,
        )

    def to(self, how: Any, selected: bool = False) -> None:
        try:
            if not self.selected and not selected:
                raise BadInput("no block is selected", "a selection", "click or drag on the map")
            self.history.append(how())
            self.show()
        except BadInput as error:
            self.show(str(error))

    def undo(self) -> None:
        if len(self.history) > 1:
            self.history.pop()
        self.show()

    # --- showing ----------------------------------------------------------------------------------

    def drawn(self, rows: dict[str, charts.Rows] | None = None) -> alt.VConcatChart:
        return charts.sensitivity_chart(
            self.teacher,
            [],
            [],
            [],
            rows or charts.plan_rows(self.plan, self.teacher),
            width=self.width,
        )

    def show(self, problem: str = "") -> None:
        """Repaint the plan, the selection and the budget."""
        rows = charts.plan_rows(self.plan, self.teacher)
        for row in rows["marks"]:
            row["selected"] = row["at"] in self.selected
        self.picture.chart = self.drawn(rows)
        chosen = ", ".join(str(row["block"]) for row in rows["marks"] if row["selected"])
        self.told.value = (
            f"<b style='color:#d1495b'>{escape(problem)}</b>"
            if problem
            else f"selected: {chosen or 'nothing'}"
        )
        self.hand.show()
        self.budget.value = budget_words(self.plan, self.teacher, self.measured)
        cuts = plans.free_cuts(self.plan, self.teacher)
        self.free.layout.display = "" if cuts else "none"
        self.free.tooltip = "; ".join(
            f"{cut.drop} of {cut.stack}: {cut.parameters:,} parameters" for cut in cuts
        )


def budget_words(plan: Plan, teacher: Teacher, measured: SensitivityMap | None) -> str:
    """What a plan costs, and the error predicted for it, as HTML."""
    info = plans.plan_info(plan, teacher, measured)
    depths = []
    for path, count in info.depth.items():
        single = f" ({info.single[path]} single-stream)" if info.single.get(path) else ""
        depths.append(f"{path} {count}{single}")
    error = "" if info.error is None else f" · predicted error {escape(str(info.error))}"
    return (
        f"<b>{info.parameters / 1e6:.4g} M</b> parameters ({100 * info.ratio:.0f} % of "
        f"the teacher) · depth {escape(', '.join(depths))} · bf16 {info.memory['bf16'] / 1e6:.3g} MB"
        f"{error} · predicted speed {info.speedup:.2f}×"
    )


class Hand(widgets.HBox):
    """What the selected student blocks are made of; each control changes the plan at once."""

    def __init__(self, editor: Editor):
        self.editor, self.painting = editor, False
        self.stream = widgets.Dropdown(
            options=["", *student_blocks.STREAMS], description="stream", layout={"width": "160px"}
        )
        self.init = widgets.Dropdown(
            options=["", *get_args(Init)], description="starts from", layout={"width": "180px"}
        )
        self.gain = widgets.Combobox(
            options=["1", "2", "3", "length"],
            description="gain",
            continuous_update=False,
            layout={"width": "160px"},
        )
        self.parts = widgets.HBox(layout={"flex_flow": "row wrap"})
        for name in ("stream", "init", "gain"):
            getattr(self, name).observe(
                lambda event, name=name: self.on_change(name, event["new"]), "value"
            )
        super().__init__(
            [self.stream, self.init, self.gain, widgets.Label("parts that go:"), self.parts],
            layout={"flex_flow": "row wrap"},
        )

    def on_change(self, name: str, value: Any) -> None:
        if value and not self.painting:
            self.editor.change(**{name: value})

    def on_part(self, part: str, gone: bool) -> None:
        if not self.painting:
            self.editor.change(**{"drop" if gone else "restore": [part]})

    def show(self) -> None:
        """The controls as the selected student blocks stand; what they do not share is empty."""
        state = student_blocks.state(self.editor.plan, self.editor.teacher, self.editor.selection)
        self.painting = True
        for name in ("stream", "init", "gain"):
            control = getattr(self, name)
            control.disabled = (
                state.count == 0
                or (name == "stream" and not state.single)
                or (name == "init" and state.init is None)
            )
            control.value = getattr(state, name) or ""
        self.parts.children = [self.box(part, part in state.drop) for part in state.parts]
        self.painting = False

    def box(self, part: str, gone: bool) -> widgets.Checkbox:
        box = widgets.Checkbox(gone, description=part, indent=False, layout={"width": "auto"})
        box.observe(lambda event: self.on_part(part, event["new"]), "value")
        return box


class Watcher(widgets.VBox):
    """A job's progress and losses."""

    def __init__(self, store: Store, job: str, every: float):
        self.store, self.job, self.every = store, jobs.show(store, job).id, every
        self.lines: list[dict[str, Any]] = []
        self.cursor = jobs.Cursor()
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
            # a resumed run went back
            self.lines = [line for line in self.lines if line["step"] < fresh[0]["step"]] + fresh
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
        """Follow the job to its end and return its result. Raises RuntimeError where it did not end
        as done.
        """
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
        super().__init__(
            [self.at, self.caption, self.pictures, widgets.HTML(self.costs()), *scores]
        )

    def show(self) -> None:
        seeds = max(1, len(self.comparison.seeds))
        prompt, seed = divmod(self.at.value, seeds)
        if prompt < len(self.comparison.prompts):
            self.caption.value = (
                f"seed {self.comparison.seeds[seed]}: {escape(self.comparison.prompts[prompt])}"
            )
        boxes = []
        for model, files in self.comparison.images.items():
            path = self.folder / files[self.at.value] if self.at.value < len(files) else None
            picture = (
                widgets.Image(value=path.read_bytes(), width=self.width)
                if path and path.is_file()
                else widgets.Label("no picture")
            )
            boxes.append(widgets.VBox([widgets.Label(model), picture]))
        self.pictures.children = boxes

    def costs(self) -> str:
        rows = charts.cost_rows(self.comparison)
        head = "".join(
            f"<th style='padding:2px 10px'>{escape(key)}</th>" for key in (rows[0] if rows else ())
        )
        body = [
            "".join(f"<td style='padding:2px 10px'>{shown(value)}</td>" for value in row.values())
            for row in rows
        ]
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{cells}</tr>' for cells in body)}</table>"


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else escape("–" if value is None else str(value))
