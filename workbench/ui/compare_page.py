"""Page "Compare": finished comparisons picture by picture, with scores and costs; one prompt live
(live.py); new comparisons, which run as jobs (compare_form.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import gradio as gr
from PIL import Image

from .. import charts
from ..records import BadInput, Comparison, write_atomic
from ..workspace.store import Store
from . import catalogue
from .access import Access
from .address import AT_LOAD, Address, Lookup, Place
from .compare_form import CompareForm
from .components import LAST, QUIET, spec_of
from .components import figure as chart_figure
from .cost_table import cost_table
from .forms import Changes, Fields, Readable, connect
from .live import LivePanel
from .pulse import Pulse
from .text import (
    notice,
    plural,
    problem,
)

NO_COMPARISON = (
    "No finished comparison yet. Run one under “New comparison”, or try one prompt live."
)
LOOKED_AT = 20  # newest comparisons, whose students are drawn together
SERVED = "comparisons"  # the folder of the workspace whose pictures Gradio may serve


@dataclass(frozen=True)
class FinishedForm:
    """comparison: a path of the list. at: number of the picture, prompts x seeds. listed: what the
    lists held.
    """

    comparison: str | None = None
    left: str | None = None
    right: str | None = None
    at: int = 0
    listed: str = ""


class ComparePage:
    def __init__(self, store: Store, access: Access | None = None):
        self.store = store
        self.access = access or Access(store)
        self.live = LivePanel(store, access)
        self.form = CompareForm(store, access)

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Tabs(elem_id="compare-tabs"):
            with gr.Tab("Finished comparisons"):
                self.build_finished()
            with gr.Tab("One prompt, live"):
                self.live.build()
            with gr.Tab("New comparison"):
                self.form.build()

    def build_finished(self) -> None:
        with gr.Row(elem_classes="wb-bar"):
            self.comparison = gr.Dropdown(
                [], label="Comparison", elem_id="comparison", scale=3, min_width=180
            )
            self.left = gr.Dropdown([], label="Left", elem_id="left", scale=2, min_width=130)
            self.right = gr.Dropdown([], label="Right", elem_id="right", scale=2, min_width=130)
            self.report = gr.Button(
                "Write a report", elem_id="report", size="sm", min_width=110, interactive=False
            )
        self.message = gr.HTML(elem_id="compare-message")
        self.costs = gr.HTML(elem_id="costs")
        with gr.Row(equal_height=False, elem_classes="wb-finished"):
            with gr.Column(scale=3, min_width=300):
                self.build_pictures()
            with gr.Column(scale=2, min_width=300):
                self.scores = chart_figure(elem_id="scores")
                self.students = chart_figure(elem_id="students")
        self.listed = gr.State("")

    def build_pictures(self) -> None:
        self.slider = gr.ImageSlider(
            label="left | right",
            format="png",
            interactive=False,
            elem_id="slider",
            max_height=460,
            show_label=False,
        )
        with gr.Row(elem_classes="wb-bar wb-tools"):
            self.previous = gr.Button("← previous", elem_id="compare-back", size="sm", min_width=90)
            self.next = gr.Button("next →", elem_id="compare-forth", size="sm", min_width=90)
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

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks, address: Address, pulse: Pulse) -> None:
        form = [
            Fields(
                FinishedForm,
                comparison=self.comparison,
                left=self.left,
                right=self.right,
                at=self.at,
                listed=self.listed,
            )
        ]
        picture = {
            "slider": self.slider,
            "caption": self.caption,
            "grid": self.grid,
            "at": self.at,
        }
        shown = {
            **picture,
            "left": self.left,
            "right": self.right,
            "costs": self.costs,
            "scores": self.scores,
            "students": self.students,
            "message": self.message,
            "report": self.report,
        }
        lists = {
            **shown,
            "listed": self.listed,
            "comparison": self.comparison,
            "models": self.form.models,
            "live_left": self.live.left,
            "live_right": self.live.right,
        }
        address.arrive(demo, self.on_address, form, lists)
        address.step("comparison", self.comparison.input, self.comparison)
        address.keep("comparison", self.comparison.change, self.comparison)
        news: list[Readable] = [address.input, *form]
        connect([pulse.event("compare")], self.on_news, news, lists, js=AT_LOAD, **LAST)
        connect([self.comparison.input], self.on_choose, form, shown, **QUIET)
        connect([self.left.input, self.right.input], self.picture, form, picture, **QUIET)
        connect([self.previous.click], self.on_previous, form, picture, **QUIET)
        connect([self.next.click], self.on_next, form, picture, **QUIET)
        connect([self.report.click], self.on_report, form, {"message": self.message})
        self.form.wire(demo)
        self.live.wire()

    # --- handlers ---------------------------------------------------------------------------------

    def on_address(self, place: Place, form: FinishedForm) -> Changes:
        """The comparison that an address names, or the newest; nothing while another page is shown:
        the first look at this one draws it (pulse.js).
        """
        if place.tab != "compare":
            return {}
        if place.number and not place.comparison:
            return {}  # Back or Forward to something else
        lookup = Lookup()
        comparisons = catalogue.comparisons(self.store)
        chosen = lookup.value(comparisons, place.comparison, "comparison")
        changes = self.on_tick(form)
        if chosen and chosen != form.comparison:
            changes["comparison"] = gr.Dropdown(choices=comparisons, value=chosen)
            changes |= self.on_choose(replace(form, comparison=chosen))
        if lookup.refusals:
            changes["message"] = problem(lookup.refusals[0])
        return changes

    def on_news(self, place: Place, form: FinishedForm) -> Changes:
        """Something is new, or the page is shown for the first time: then as its address says."""
        return self.on_tick(form) if form.listed else self.on_address(place, form)

    def on_tick(self, form: FinishedForm) -> Changes:
        """New comparisons and models enter the lists; what is shown stays."""
        comparisons = catalogue.comparisons(self.store)
        models = catalogue.models(self.store)
        listed = repr((comparisons, models))
        if listed == form.listed:
            return {}
        chosen = catalogue.current(comparisons, form.comparison)
        changes: Changes = {
            "listed": listed,
            "comparison": gr.Dropdown(choices=comparisons, value=chosen),
            "models": gr.Dropdown(choices=models),
            "live_left": gr.Dropdown(choices=models),
            "live_right": gr.Dropdown(choices=models),
        }
        if not form.listed and models:  # the page has just been opened
            changes["live_left"] = gr.Dropdown(choices=models, value=models[0][1])
            changes["live_right"] = gr.Dropdown(choices=models, value=models[-1][1])
        if chosen is None or chosen != form.comparison:
            changes |= self.on_choose(replace(form, comparison=chosen))
        return changes

    def on_choose(self, form: FinishedForm) -> Changes:
        """Another comparison: its models, scores and first picture."""
        if form.comparison is None:
            return {
                "costs": "",
                "scores": spec_of(None),
                "students": spec_of(None),
                "message": notice(NO_COMPARISON),
                "report": gr.Button(interactive=False),
                **no_picture(),
            }
        _, comparison = self.read(form.comparison)
        names = [model.name for model in comparison.models]
        first = replace(form, left=names[0], right=names[-1], at=0)
        return {
            "left": gr.Dropdown(choices=names, value=names[0]),
            "right": gr.Dropdown(choices=names, value=names[-1]),
            "costs": cost_table(comparison),
            "scores": score_figure(comparison),
            "students": student_figure(comparison, self.others(comparison)),
            "message": "",
            "report": gr.Button(interactive=True),
            **self.picture(first),
        }

    def read(self, chosen: str | None) -> tuple[Path, Comparison]:
        """A comparison of the list. Raises BadInput for anything else that the browser sends."""
        if chosen is None or chosen not in {
            row.path for row in self.store.all_records("comparison")
        }:
            raise BadInput("no comparison is chosen", "one of the list", "choose one")
        return Path(chosen), Comparison.load(Path(chosen) / "comparison.json")

    def others(self, comparison: Comparison) -> list[Comparison]:
        """Further comparisons of the same prompts and seeds, the newest of the list."""
        return list(self.other_folders(comparison).values())

    def other_folders(self, comparison: Comparison) -> dict[Path, Comparison]:
        """The same with their folders."""
        found = {}
        for row in self.store.comparisons()[:LOOKED_AT]:
            other = Comparison.load(Path(row.path) / "comparison.json")
            same = (other.prompts, other.seeds) == (comparison.prompts, comparison.seeds)
            if same and other.digest != comparison.digest:
                found[Path(row.path)] = other
        return found

    def on_report(self, form: FinishedForm) -> Changes:
        """Write the page and the table of `workbench report` into the workspace: of this comparison
        and of the others that its students are drawn with.
        """
        from ..charts.report import Source, report_html, report_markdown

        self.access.check_change()
        folder, comparison = self.read(form.comparison)
        found = {folder: comparison, **self.other_folders(comparison)}
        page = self.store.workspace / "reports" / f"{folder.name}.html"
        write_atomic(page, report_html([Source(*each) for each in found.items()]))
        write_atomic(page.with_suffix(".md"), report_markdown(list(found.values())))
        return {"message": notice(f"Report of {plural(len(found), 'comparison')}: {page}")}

    def on_previous(self, form: FinishedForm) -> Changes:
        return self.picture(replace(form, at=form.at - 1))

    def on_next(self, form: FinishedForm) -> Changes:
        return self.picture(replace(form, at=form.at + 1))

    def picture(self, form: FinishedForm) -> Changes:
        """Pair of pictures number `at` (prompts x seeds), and every seed of its prompt."""
        try:
            folder, comparison = self.read(form.comparison)
        except BadInput:
            return no_picture()
        seeds = max(1, len(comparison.seeds))
        total = len(comparison.prompts) * seeds
        if not total:
            return no_picture()
        at = form.at % total
        prompt = at // seeds
        names = [str(form.left), str(form.right)]
        left = self.picture_of(folder, comparison, names[0], at)
        right = self.picture_of(folder, comparison, names[1], at)
        grid = []
        for name in dict.fromkeys(names):
            for number, seed in enumerate(comparison.seeds):
                shown = self.picture_of(folder, comparison, name, prompt * seeds + number)
                if shown is not None:
                    grid.append((shown, f"{name} · seed {seed}"))
        pair = None
        if left and right:
            pair = (left, right)
        return {
            "slider": pair,
            "caption": caption(comparison, at),
            "grid": grid,
            "at": at,
        }

    def picture_of(
        self, folder: Path, comparison: Comparison, model: str, at: int
    ) -> str | Image.Image | None:
        """A picture as Gradio shows it: a path where it may serve that, else the pixels, of a
        comparison that was written outside the workspace; None where there is none.
        """
        path = picture_file(folder, comparison, model, at)
        if path is None:
            return None
        if path.is_relative_to((self.store.workspace / SERVED).resolve()):
            return str(path)
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB")
        except OSError:
            return None


def score_figure(comparison: Comparison) -> gr.HTML:
    """The chart of the scores; empty where nothing was scored."""
    rows = charts.score_rows(comparison)
    if not rows:
        return spec_of(None)
    return spec_of(charts.score_chart(rows))


def student_figure(comparison: Comparison, others: list[Comparison]) -> gr.HTML:
    """Cost against score of this comparison's models, and of others that have its scorer."""
    label = charts.usual_scorer([comparison])
    if not label:
        return spec_of(None)
    rows = charts.student_rows(comparison, *others, scorer=label)
    return spec_of(charts.student_chart(rows))


def no_picture() -> Changes:
    return {"slider": None, "caption": "", "grid": None, "at": 0}


def picture_file(folder: Path, comparison: Comparison, model: str, at: int) -> Path | None:
    """The picture's path, or None where it is missing or lies outside the comparison."""
    names = comparison.images.get(model) or []
    if not names:
        return None
    path = (folder / names[at % len(names)]).resolve()
    if path.is_relative_to(folder.resolve()) and path.is_file():
        return path
    return None


def caption(comparison: Comparison, at: int) -> str:
    """Number, seed and prompt of a pair of pictures."""
    seeds = max(1, len(comparison.seeds))
    number, seed = divmod(at, seeds)
    prompt = comparison.prompts[number]
    return (
        f"<span class='wb-chosen'><b>{at + 1} of {len(comparison.prompts) * seeds}</b> · seed "
        f"{comparison.seeds[seed]} on both sides · "
        f"<span title='{escape(prompt)}'>{escape(prompt[:300])}</span></span>"
    )
