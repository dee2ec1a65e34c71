"""Page "Compare": finished comparisons picture by picture, with scores and cost; new ones run as
jobs (live.py: one prompt at once).
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from .. import charts
from ..records import BadInput, Comparison
from ..workspace import jobs
from ..workspace.store import Store
from . import catalogue
from .components import QUIET
from .components import figure as chart_figure
from .inputs import safe_name, whole
from .live import LivePanel
from .text import command, count, figure, notice, percent, problem, size

Pair = tuple[str, str]


class ComparePage:
    def __init__(self, store: Store):
        self.store = store
        self.live = LivePanel(store)

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Tabs():
            with gr.Tab("Finished comparisons"):
                self.finished()
            with gr.Tab("One prompt, live"):
                self.live.build()
            with gr.Tab("New comparison"):
                self.launcher()

    def finished(self) -> None:
        with gr.Row(elem_classes="wb-bar"):
            self.which = gr.Dropdown(
                [], label="Comparison", elem_id="comparison", scale=3, min_width=180
            )
            self.left = gr.Dropdown([], label="Left", elem_id="left", scale=2, min_width=130)
            self.right = gr.Dropdown([], label="Right", elem_id="right", scale=2, min_width=130)
        self.said = gr.HTML(elem_id="compare-message")
        self.costs = gr.HTML(elem_id="costs")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.slider = gr.ImageSlider(
                    label="left | right",
                    format="png",
                    interactive=False,
                    elem_id="slider",
                    max_height=460,
                    show_label=False,
                )
                with gr.Row(elem_classes="wb-bar wb-tools"):
                    self.back = gr.Button(
                        "← previous", elem_id="compare-back", size="sm", min_width=90
                    )
                    self.forth = gr.Button(
                        "next →", elem_id="compare-forth", size="sm", min_width=90
                    )
                    self.caption = gr.HTML(elem_id="caption")
                self.at = gr.State(0)
                self.grid = gr.Gallery(
                    label="Every seed of this prompt",
                    format="png",
                    columns=4,
                    height=250,
                    elem_id="grid",
                    object_fit="contain",
                    interactive=False,
                )
            with gr.Column(scale=2, min_width=300):
                self.scores = chart_figure(elem_id="scores")
        self.known = gr.State("")
        self.timer = gr.Timer(3.0)

    def launcher(self) -> None:
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.models = gr.Dropdown(
                [],
                label="Models, the teacher first",
                multiselect=True,
                elem_id="models",
                scale=4,
                min_width=200,
            )
            self.suite = gr.Textbox(
                "scenes",
                label="Suite (scenes, or a .jsonl file)",
                elem_id="suite",
                scale=2,
                min_width=140,
            )
            self.seeds = gr.Number(
                2, label="Seeds", precision=0, elem_id="seeds", scale=1, min_width=80
            )
            self.steps = gr.Number(
                0,
                label="Steps (0: usual)",
                precision=0,
                elem_id="compare-steps",
                scale=1,
                min_width=80,
            )
            self.name = gr.Textbox(
                "comparison", label="Name", elem_id="compare-name", scale=2, min_width=120
            )
            self.run = gr.Button("Compare", variant="primary", elem_id="compare-run", min_width=100)
        self.line = gr.Code(
            "",
            language="shell",
            label="The same on the command line",
            lines=1,
            wrap_lines=True,
            interactive=False,
            elem_classes="wb-line",
            elem_id="compare-command",
        )
        self.started = gr.HTML(elem_id="compare-started")

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks) -> None:
        picture = [self.slider, self.caption, self.grid, self.at]
        about = [self.left, self.right, self.costs, self.scores, self.said]
        lists = [self.known, self.which, self.models, self.live.left, self.live.right]
        demo.load(self.on_tick, [self.known, self.which], [*lists, *about, *picture], **QUIET)
        self.timer.tick(self.on_tick, [self.known, self.which], [*lists, *about, *picture], **QUIET)
        self.which.input(self.on_choose, self.which, [*about, *picture], **QUIET)
        at = [self.which, self.left, self.right, self.at]
        for event, step in (
            (self.left.input, 0),
            (self.right.input, 0),
            (self.back.click, -1),
            (self.forth.click, 1),
        ):
            event(self.stepper(step), at, picture, **QUIET)
        fields: list[Any] = [self.models, self.suite, self.seeds, self.steps, self.name]
        demo.load(self.on_fields, fields, self.line, **QUIET)
        for field in fields:
            field.change(self.on_fields, fields, self.line, **QUIET)
        self.run.click(self.on_run, fields, self.started, **QUIET)
        self.live.wire()

    # --- finished ---------------------------------------------------------------------------------

    def on_tick(self, known: str, chosen: str | None) -> list[Any]:
        """New comparisons and students enter the lists; what is shown stays."""
        found = [
            (f"{row['name']} ({', '.join(row['models'])})", row["path"])
            for row in self.store.comparisons()
        ]
        models = catalogue.models(self.store)
        now = repr((found, models))
        if now == known:
            return [gr.skip()] * 14
        values = [path for _, path in found]
        kept = chosen if chosen in values else (values[0] if values else None)
        names = [value for _, value in models]
        lists = [
            now,
            gr.Dropdown(choices=found, value=kept),
            gr.Dropdown(choices=models),
            gr.Dropdown(choices=models, value=names[0] if names else None)
            if not known
            else gr.Dropdown(choices=models),
            gr.Dropdown(choices=models, value=names[-1] if names else None)
            if not known
            else gr.Dropdown(choices=models),
        ]
        if kept == chosen and chosen is not None:
            return [*lists, *[gr.skip()] * 9]
        return [*lists, *self.on_choose(kept)]

    def read(self, chosen: Any) -> tuple[Path, Comparison]:
        """A comparison of the list; anything else from the browser is refused."""
        if chosen not in {row["path"] for row in self.store.comparisons()}:
            raise BadInput("no comparison is chosen", "one of the list", "choose one")
        return Path(chosen), Comparison.load(Path(chosen) / "comparison.json")

    def on_choose(self, chosen: str | None) -> list[Any]:
        """Another comparison: its models, scores and first picture."""
        if chosen is None:
            said = notice(
                "No finished comparison yet. Run one on “New comparison”, or try one prompt live."
            )
            return [gr.skip(), gr.skip(), "", gr.HTML(spec=None), said, None, "", None, 0]
        try:
            _, comparison = self.read(chosen)
        except BadInput as error:
            return [
                gr.skip(),
                gr.skip(),
                "",
                gr.HTML(spec=None),
                problem(str(error)),
                None,
                "",
                None,
                0,
            ]
        names = [m.name for m in comparison.models]
        rows = charts.score_rows(comparison)
        spec = charts.score_chart(rows).to_dict() if rows else None
        return [
            gr.Dropdown(choices=names, value=names[0]),
            gr.Dropdown(choices=names, value=names[-1]),
            cost_table(comparison),
            gr.HTML(spec=spec),
            "",
            *self.picture(chosen, names[0], names[-1], 0),
        ]

    def stepper(self, step: int) -> Any:
        def handler(chosen: str | None, left: str, right: str, at: int) -> list[Any]:
            return self.picture(chosen, left, right, at + step)

        return handler

    def picture(self, chosen: str | None, left: str, right: str, at: int) -> list[Any]:
        """The pair of pictures number `at` (prompts x seeds), and every seed of its prompt."""
        try:
            folder, comparison = self.read(chosen)
            pair = [self.file(folder, comparison, name, at) for name in (left, right)]
        except (BadInput, IndexError):
            return [None, "", None, 0]
        seeds = max(1, len(comparison.seeds))
        total = len(comparison.prompts) * seeds
        at %= max(1, total)
        prompt, seed = divmod(at, seeds)
        caption = (
            f"<span class='wb-chosen'><b>{at + 1} of {total}</b> · seed "
            f"{comparison.seeds[seed]} on both sides · "
            f"<span title='{escape(comparison.prompts[prompt])}'>{escape(comparison.prompts[prompt][:300])}</span></span>"
        )
        grid = [
            (path, f"{name} · seed {comparison.seeds[s]}")
            for name in dict.fromkeys((left, right))
            for s in range(seeds)
            if (path := self.file(folder, comparison, name, prompt * seeds + s))
        ]
        return [tuple(pair) if all(pair) else None, caption, grid, at]

    def file(self, folder: Path, comparison: Comparison, model: str, at: int) -> str | None:
        """The picture's path, or None where it is missing or lies outside the comparison."""
        names = comparison.images.get(model) or []
        if not names:
            return None
        path = (folder / names[at % len(names)]).resolve()
        return str(path) if path.is_relative_to(folder.resolve()) and path.is_file() else None

    # --- new --------------------------------------------------------------------------------------

    def on_fields(
        self, models: list[str] | None, suite: str, seeds: Any, steps: Any, name: str
    ) -> str:
        out = self.store.workspace / "comparisons" / (name or "comparison")
        how = ("--steps", steps) if steps else ()
        return command(
            "compare",
            *(models or ["TEACHER", "STUDENT"]),
            "-o",
            out,
            "--suite",
            suite,
            "--seeds",
            seeds,
            *how,
            "--workspace",
            self.store.workspace,
            "--background",
        )

    def on_run(
        self, models: list[str] | None, suite: str, seeds: Any, steps: Any, name: str
    ) -> str:
        try:
            known = {value for _, value in catalogue.models(self.store)}
            if not models or len(models) < 2 or not set(models) <= known:
                raise BadInput(
                    f"{len(models or [])} models",
                    "a teacher and at least one student of the list",
                    "choose them",
                )
            out = self.store.out("comparison", safe_name(name, "comparison"))
            spec: dict[str, Any] = {
                "models": models,
                "suite": suite.strip(),
                "seeds": whole(seeds, 1, 1000, "seeds"),
                "out": str(out),
            }
            spec |= {"steps": whole(steps, 1, 1000, "steps")} if steps else {}
            job = jobs.submit(self.store, "compare", spec, title=f"compare {out.name}")
            return notice(
                f"{job.title}: job {job.id} is {job.state}. It appears in the list when it is done."
            )
        except BadInput as error:
            return problem(str(error))


def cost_table(comparison: Comparison) -> str:
    """Models in rows: size, speed, scores with intervals, what is kept of the first model's score."""
    scorers = list(dict.fromkeys(s for m in comparison.models for s in m.scores))
    names = ("model", "parameters", "size", "ms/step", *scorers, *(f"{s} kept" for s in scorers))
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names)
    rows = []
    first = comparison.models[0].parameters if comparison.models else 0
    for m in comparison.models:
        cells = [
            escape(m.name),
            f"{count(m.parameters)} ({percent(m.parameters / first if first else None)})",
            size(m.bytes),
            figure(m.ms_per_step),
        ]
        cells += [with_interval(m.scores.get(s, {})) for s in scorers] + [
            percent(m.retention.get(s)) for s in scorers
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    about = (
        f"{comparison.suite}: {len(comparison.prompts)} prompts, {len(comparison.seeds)} "
        f"seeds, {comparison.steps} steps, "
        f"guidance {comparison.guidance:g}"
    )
    return (
        f"<div class='wb-scroll'><table "
        f"class='wb-table'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"<div class='wb-about'>{escape(about)}. The same seeds for every model.</div>"
    )


def with_interval(scores: dict[str, Any]) -> str:
    score, low, high = charts.interval(scores.get("overall"), scores)
    return figure(score) + (
        f" [{figure(low)}, {figure(high)}]" if low is not None and high is not None else ""
    )
