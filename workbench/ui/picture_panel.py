"""The plan drawn on its own, the plans saved in the workspace, and what has changed since one of
them.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from .. import charts, plans
from ..records import BadInput, Plan, Teacher
from . import catalogue, draft
from .components import LAST, OPEN, QUIET, figure
from .text import notice, problem

if TYPE_CHECKING:
    from ..charts.view import Look
    from .plan_page import Changes, PlanPage


class PicturePanel:
    tab: gr.Tab

    def __init__(self, page: PlanPage):
        self.page = page

    def build(self) -> None:
        self.picture = figure(elem_id="plan-picture")
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.saved = gr.Dropdown(
                [],
                label="Saved plans of this teacher",
                elem_id="saved-plan",
                scale=4,
                min_width=200,
                **OPEN,
            )
            self.open = gr.Button("Open", elem_id="open-plan", min_width=110, scale=0)
        self.difference = gr.HTML(elem_id="plan-difference")

    def frame(self) -> dict[str, Any]:
        return {"saved": self.saved}

    def fitted(self, teacher: Teacher) -> Changes:
        found = catalogue.plans(self.page.store, teacher)
        return {"saved": gr.Dropdown(choices=found, value=found[0][1] if found else None)}

    def listed(self, saved: list[tuple[str, str]]) -> Changes:
        return {"saved": gr.Dropdown(choices=saved)}

    def wire(self) -> None:
        page = self.page
        self.open.click(
            page.named(self.on_open), [page.heat, *page.sight, self.saved], page.shown, **QUIET
        )
        # The map's value carries the plan's version: whatever changes the plan changes it.
        for event in (self.tab.select, self.saved.change, page.heat.change):
            event(self.on_look, [page.teacher, self.saved], [self.picture, self.difference], **LAST)

    # --- handlers ---------------------------------------------------------------------------------

    def read(self, teacher: Teacher, path: str | None) -> Plan:
        """A saved plan of the list; anything else from the browser is refused."""
        if path not in {value for _, value in catalogue.plans(self.page.store, teacher)}:
            raise BadInput("no saved plan is chosen", "one of the list", "choose one")
        return plans.check(Plan.load(str(path)), teacher)

    def on_open(
        self,
        heat: Any,
        key: str | None,
        chosen_map: str | None,
        weighting: str,
        given: str,
        path: str | None,
    ) -> Changes:
        def how(state: draft.Draft, seen: Look, _: list[int]) -> draft.Draft:
            return state.to(self.read(seen.teacher, path))

        return self.page.apply(heat, key, chosen_map, weighting, given, how=how)

    def on_look(self, key: str | None, path: str | None) -> list[Any]:
        """The plan on disk, drawn, and against a saved one."""
        try:
            teacher = catalogue.teacher(self.page.store, key)
        except BadInput:
            return [gr.HTML(spec=None), ""]
        plan = draft.load(self.page.store.workspace, teacher).plan
        chart = charts.plan_picture_chart(charts.plan_picture_rows(plan, teacher))
        return [gr.HTML(spec=chart.to_dict(validate=False)), self.on_compare(key, path)]

    def on_compare(self, key: str | None, path: str | None) -> str:
        """What is different from the saved plan, in words."""
        try:
            teacher = catalogue.teacher(self.page.store, key)
            if not catalogue.plans(self.page.store, teacher):
                return notice(
                    "No plan of this teacher is saved yet. “Save plan” under Build keeps this one."
                )
            if path is None:
                return notice("Choose a saved plan to see what is different.")
            lines = plans.difference(
                self.read(teacher, path), draft.load(self.page.store.workspace, teacher).plan
            )
        except BadInput as error:
            return problem(str(error))
        if not lines:
            return notice("The plan is the saved one.")
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        return f"<div class='wb-about'><b>Different from the saved plan:</b><ul class='wb-list'>{items}</ul></div>"
