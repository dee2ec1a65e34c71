"""Two maps of a teacher, or two edits of one map: where they differ, and how similarly they rank
the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import gradio as gr

from .. import charts
from ..charts.view import Look, correlation_chart, default_edit, difference_rows
from . import catalogue
from .address import AT_LOAD, Address, while_open
from .components import LAST, OPEN, figure, spec_of
from .forms import Changes, Fields, Readable, connect
from .plan_state import PlanState, PlanView
from .text import about, notice, short

Edits = tuple[str, str]  # of the first map, of the second


@dataclass(frozen=True)
class SecondForm:
    """The second map and its edit."""

    second: str | None = None
    edit: str | None = None


class MapsPanel:
    tab: gr.Tab

    def __init__(self, state: PlanState):
        self.state = state

    def build(self) -> None:
        gr.HTML(about("The map and edit chosen at the top of the page, against:"))
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.second = gr.Dropdown(
                [], label="Second map", elem_id="second-map", scale=4, min_width=180, **OPEN
            )
            self.edit = gr.Dropdown(
                [], label="Its edit", elem_id="second-edit", scale=1, min_width=130, **OPEN
            )
        self.about = gr.HTML(elem_id="maps-about")
        self.difference = figure(elem_id="difference")
        self.correlation = figure(elem_id="correlation")
        self.state.page_widgets["second"] = self.second

    def wire(self, address: Address) -> None:
        state = self.state
        events = [
            self.tab.select,
            self.second.input,
            self.edit.input,
            state.map.change,
            state.edit.input,
            state.weighting.input,
            state.weights.submit,
        ]
        outputs = {
            "edit": self.edit,
            "message": self.about,
            "difference": self.difference,
            "correlation": self.correlation,
        }
        second = Fields(SecondForm, second=self.second, edit=self.edit)
        look = while_open("maps", self.on_look)
        inputs: list[Readable] = [address.input, state.fields, second]
        connect(events, look, inputs, outputs, js=AT_LOAD, **LAST)

    def for_map(self, maps: catalogue.Choices, chosen: str | None) -> Changes:
        """The same map twice to begin with: its edits against each other."""
        return {"second": gr.Dropdown(choices=maps, value=chosen)}

    def on_look(self, shown: PlanView, form: SecondForm) -> Changes:
        empty = {"difference": spec_of(None), "correlation": spec_of(None)}
        first = self.state.look(shown)
        if first.sensitivity is None:
            return {"message": notice("This teacher has no sensitivity map yet."), **empty}
        other = catalogue.sensitivity(self.state.store, first.teacher, form.second)
        second = first.at(other or first.sensitivity)
        edit = default_edit(first, shown.edit)
        edits = (edit, second_edit(first, second, edit, form.edit))
        rows = difference_rows(first, second, edits)
        chart = None
        if rows:
            chart = charts.difference_chart(first.teacher, rows, edits)
        looks = {"first": first}
        if second.sensitivity is not first.sensitivity:
            looks["second"] = second
        return {
            "edit": gr.Dropdown(choices=second.edits, value=edits[1]),
            "message": explained(first, second, edits, rows),
            "difference": spec_of(chart),
            "correlation": spec_of(correlation_chart(looks)),
        }


def second_edit(first: Look, second: Look, edit: str, chosen: str | None) -> str:
    """The chosen edit of the second map; else the first one that makes it a comparison."""
    if chosen is not None and chosen in second.edits:
        return chosen
    same_map = first.sensitivity is second.sensitivity
    for other in second.edits:
        if not same_map or other != edit:
            return other
    return second.edits[0]


def explained(first: Look, second: Look, edits: Edits, rows: charts.Rows) -> str:
    """What the chart of the difference shows, in words."""
    if not rows:
        return notice("No block has a positive score in both maps: nothing to compare.")
    names = [named(first, edits[0]), named(second, edits[1])]
    if rows[0]["kind"] == "ratio":
        shows = "first score divided by the second"
    else:
        shows = "the blocks' ranks in the two, since the metrics have different units"
    text = f"<b>{escape(names[0])} against {escape(names[1])}</b>: {shows}."
    correlation = charts.spearman(first.scores(edits[0]), second.scores(edits[1]))
    if correlation is not None:
        text += f" Rank correlation of the two orders of blocks: {correlation:.2f}."
    return about(text)


def named(look: Look, edit: str) -> str:
    if look.sensitivity is None:
        return edit
    return short(f"{edit} ({look.sensitivity.metric})")
