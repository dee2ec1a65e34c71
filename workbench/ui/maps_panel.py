"""Two maps of a teacher, or two edits of one: where they differ, and how far they put the blocks in
the same order.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from .. import charts
from ..charts.view import Look, correlation_chart, difference_rows
from ..records import BadInput
from . import catalogue
from .components import LAST, OPEN, figure
from .text import notice, problem, short

if TYPE_CHECKING:
    from .plan_page import Changes, PlanPage


class MapsPanel:
    tab: gr.Tab

    def __init__(self, page: PlanPage):
        self.page = page

    def build(self) -> None:
        gr.HTML(
            "<div class='wb-about'>First: the map and the edit chosen at the top of the page. "
            "Second:</div>"
        )
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.second = gr.Dropdown(
                [], label="Second map", elem_id="second-map", scale=4, min_width=180, **OPEN
            )
            self.edit = gr.Dropdown(
                [], label="Its edit", elem_id="second-edit", scale=1, min_width=130, **OPEN
            )
        self.told = gr.HTML(elem_id="maps-told")
        self.difference = figure(elem_id="difference")
        self.correlation = figure(elem_id="correlation")

    def frame(self) -> dict[str, Any]:
        return {"second": self.second}

    def fitted(self, maps: list[tuple[str, str]], chosen: str | None) -> Changes:
        """The same map twice to begin with: its edits against each other."""
        return {"second": gr.Dropdown(choices=maps, value=chosen)}

    def listed(self, maps: list[tuple[str, str]]) -> Changes:
        return {"second": gr.Dropdown(choices=maps)}

    def wire(self) -> None:
        page = self.page
        at = [*page.sight, page.edit, self.second, self.edit]
        shown = [self.edit, self.told, self.difference, self.correlation]
        for event in (
            self.tab.select,
            self.second.input,
            self.edit.input,
            page.map.change,
            page.edit.input,
            page.weighting.input,
            page.given.submit,
        ):
            event(self.on_look, at, shown, **LAST)

    def on_look(
        self,
        key: str | None,
        chosen_map: str | None,
        weighting: str,
        given: str,
        edit: str,
        second: str | None,
        second_edit: str | None,
    ) -> list[Any]:
        nothing = gr.HTML(spec=None)
        try:
            one = self.page.look(key, chosen_map, weighting, given)
            other = catalogue.sensitivity(self.page.store, one.teacher, second) or one.sensitivity
            if one.sensitivity is None or other is None:
                return [
                    gr.skip(),
                    notice("This teacher has no sensitivity map yet."),
                    nothing,
                    nothing,
                ]
            two = one.at(other)
            edits = (
                edit if edit in one.edits else one.edits[0],
                other_edit(one, two, edit, second_edit),
            )
            rows = difference_rows(one, two, edits)
            chart = (
                charts.difference_chart(one.teacher, rows, edits).to_dict(validate=False)
                if rows
                else None
            )
        except BadInput as error:
            return [gr.skip(), problem(str(error)), nothing, nothing]
        same = two.sensitivity is one.sensitivity
        matrix = correlation_chart({"first": one} if same else {"first": one, "second": two})
        return [
            gr.Dropdown(choices=two.edits, value=edits[1]),
            told(one, two, edits, rows),
            gr.HTML(spec=chart),
            gr.HTML(spec=matrix.to_dict(validate=False) if matrix else None),
        ]


def other_edit(one: Look, two: Look, edit: str, wished: str | None) -> str:
    """What was asked for; else the first edit that makes it a comparison."""
    if wished in two.edits:
        return str(wished)
    same = one.sensitivity is two.sensitivity
    return next((e for e in two.edits if not same or e != edit), two.edits[0])


def told(one: Look, two: Look, edits: tuple[str, str], rows: charts.Rows) -> str:
    """What is shown, in words."""
    if not rows:
        return notice("No block has a positive score in both: nothing to divide.")
    names = [
        f"{edit} ({seen.sensitivity.metric if seen.sensitivity else ''})"
        for edit, seen in zip(edits, (one, two), strict=True)
    ]
    agreed = charts.spearman(one.scores(edits[0]), two.scores(edits[1]))
    words = (
        "how many times the first score is the second"
        if rows[0]["kind"] == "ratio"
        else "the blocks' ranks in the two, as the metrics have different units"
    )
    order = (
        f" Rank correlation of the two orders of blocks: {agreed:.2f}."
        if agreed is not None
        else ""
    )
    return f"<div class='wb-about'><b>{escape(short(names[0]))} against {escape(short(names[1]))}</b>: {words}.{order}</div>"
