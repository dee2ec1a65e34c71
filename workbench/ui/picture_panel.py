"""The plan as a diagram, the saved plans of the teacher, and how the plan differs from one."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import gradio as gr

from .. import charts, plans
from ..charts.view import Look
from ..records import BadInput, Plan, Teacher
from . import catalogue, draft
from .address import AT_LOAD, Address, while_open
from .components import LAST, OPEN, QUIET, figure, spec_of
from .draft import Draft
from .forms import Changes, Fields, Readable, connect
from .plan_state import PlanState, PlanView, Selection
from .text import about, notice, problem


@dataclass(frozen=True)
class SavedForm:
    """The saved plan that is chosen: a path of the list."""

    saved: str | None = None


class PicturePanel:
    tab: gr.Tab

    def __init__(self, state: PlanState):
        self.state = state

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
        self.state.page_widgets["saved"] = self.saved

    def wire(self, address: Address) -> None:
        state = self.state
        inputs: list[Readable] = [state.fields, Fields(SavedForm, saved=self.saved)]
        connect([self.open.click], self.on_open, inputs, state.plan_widgets, settled=True, **QUIET)
        # the map's value has the plan's version: whatever changes the plan changes it
        events = [self.tab.select, self.saved.change, state.heat.change, state.heat.edited]
        outputs = {"picture": self.picture, "difference": self.difference}
        look = while_open("picture", self.on_look)
        connect(events, look, [address.input, *inputs], outputs, js=AT_LOAD, **LAST)

    def for_teacher(self, teacher: Teacher) -> Changes:
        """The saved plans of another teacher."""
        choices = catalogue.plans(self.state.store, teacher)
        newest = catalogue.current(choices, None)
        return {"saved": gr.Dropdown(choices=choices, value=newest)}

    # --- handlers ---------------------------------------------------------------------------------

    def read(self, teacher: Teacher, path: str | None) -> Plan:
        """A saved plan of the list; anything else from the browser is refused."""
        if path not in {value for _, value in catalogue.plans(self.state.store, teacher)}:
            raise BadInput("no saved plan is chosen", "one of the list", "choose one")
        return plans.check(Plan.load(str(path)), teacher)

    def on_open(self, shown: PlanView, form: SavedForm) -> Changes:
        """Make the saved plan the current one; undo brings the former back."""

        def change(current: Draft, look: Look, _: Selection) -> Draft:
            return current.to(self.read(look.teacher, form.saved))

        return self.state.apply(shown, change)

    def on_look(self, shown: PlanView, form: SavedForm) -> Changes:
        """The plan on disk as a diagram, and against a saved one."""
        teacher = catalogue.teacher(self.state.store, shown.teacher)
        plan = draft.load(self.state.store.workspace, teacher).plan
        chart = charts.plan_picture_chart(charts.plan_picture_rows(plan, teacher))
        return {"picture": spec_of(chart), "difference": self.difference_from(teacher, plan, form)}

    def difference_from(self, teacher: Teacher, plan: Plan, form: SavedForm) -> str:
        """How the plan differs from the saved one, in words."""
        if not catalogue.plans(self.state.store, teacher):
            return notice("No saved plan of this teacher yet. “Save plan” under Build saves one.")
        if form.saved is None:
            return notice("Choose a saved plan to see how this one differs.")
        try:
            lines = plans.difference(self.read(teacher, form.saved), plan)
        except BadInput as error:
            return problem(str(error))
        if not lines:
            return notice("The plan is identical to the saved one.")
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        return about(f"<b>Differs from the saved plan:</b><ul class='wb-list'>{items}</ul>")
