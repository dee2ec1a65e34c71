"""What the plan page and its panels share: the workspace, the widgets at the top, and how a plan is
changed and shown.

The plan itself is on disk (draft.py). A panel adds the widgets that it repaints to `plan_widgets`
(they change with the plan) or `page_widgets` (they change with the teacher or its map), and reads
what the page shows as a `PlanView`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from .. import charts, plans
from ..charts.view import GIVEN, Look
from ..records import BadInput, Plan, Teacher
from ..workspace.store import Store
from . import catalogue, draft, edit_stream, steps, view
from .access import Access
from .components import OPEN, plan_map
from .draft import Draft
from .forms import Changes, Fields, fault
from .map_view import look_at
from .text import problem

Selection = dict[str, list[int]]  # stack path -> selected teacher blocks
Change = Callable[[Draft, Look, Selection], Draft]
Painter = Callable[[Plan, Look, list[int]], Changes]  # list: selected places on the block axis


@dataclass(frozen=True)
class PlanView:
    """What a window of the page shows, as the browser sent it: checked where it is used.

    heat: the map's value {version, selected, plan, teacher, window, source}; version is that of the
    plan on screen, window the name that this browser window gave itself, source where blocks were
    selected last: `map` or `table`. teacher, map: values of their lists. weights:
    `timestep=weight, ..`, for "given weights".
    """

    heat: object = None
    teacher: str | None = None
    map: str | None = None
    edit: str = "drop"
    colour: str = "log"
    weighting: str = "normalised"
    weights: str = ""


class PlanState:
    """Shared by the plan page and its panels: see the module's first lines."""

    boxes: gr.CheckboxGroup  # one a block; built with the table

    def __init__(self, store: Store, access: Access | None = None):
        self.store = store
        self.access = access or Access(store)
        self.plan_widgets: dict[str, Block] = {}
        self.page_widgets: dict[str, Block] = {}
        self.painters: list[Painter] = []

    # --- widgets ----------------------------------------------------------------------------------

    def build(self) -> None:
        """The bar at the top, the budget, the message and the map."""
        with gr.Row(elem_classes="wb-bar"):
            self.build_bar()
        self.plan_widgets["budget"] = gr.HTML(elem_id="budget")

        def edit(sent: Any) -> dict[str, Any]:  # Gradio sets an attribute: no bound method
            return self.receive(sent)

        self.heat = plan_map(edit, elem_id="heat", container=False)
        self.plan_widgets["heat"] = self.heat
        self.plan_widgets["message"] = gr.HTML(elem_id="message")
        self.page_widgets |= {
            "about": gr.HTML(elem_id="map-about"),
            "teacher": self.teacher,
            "map": self.map,
            "edit": self.edit,
            "colour": self.colour,
            "weights": self.weights,
        }
        self.fields = Fields(
            PlanView,
            heat=self.heat,
            teacher=self.teacher,
            map=self.map,
            edit=self.edit,
            colour=self.colour,
            weighting=self.weighting,
            weights=self.weights,
        )

    def build_bar(self) -> None:
        self.teacher = gr.Dropdown(
            catalogue.teachers(self.store),
            label="Teacher",
            value=None,
            elem_id="teacher",
            scale=3,
            min_width=180,
            **OPEN,
        )
        self.map = gr.Dropdown(
            [], label="Sensitivity map", value=None, elem_id="map", scale=4, min_width=180, **OPEN
        )
        self.edit = gr.Dropdown(
            ["drop", "merge"],
            value="drop",
            label="Edit shown",
            elem_id="edit",
            scale=1,
            min_width=130,
            **OPEN,
        )
        self.weighting = gr.Dropdown(
            [*plans.WEIGHTINGS, GIVEN],
            value="normalised",
            label="Timestep weighting",
            elem_id="weighting",
            scale=2,
            min_width=130,
        )
        self.weights = gr.Textbox(
            "1000=1, 0=0",
            label="Weights: timestep=weight, …",
            elem_id="weights",
            visible=False,
            scale=2,
            min_width=160,
        )
        self.colour = gr.Radio(
            ["log", "linear"],
            value="log",
            label="Colour scale",
            elem_id="colour",
            scale=1,
            min_width=170,
        )

    @property
    def all_widgets(self) -> dict[str, Block]:
        """Every widget that changes with the teacher, its map or the plan."""
        return {**self.page_widgets, **self.plan_widgets}

    # --- reading ----------------------------------------------------------------------------------

    def look(self, shown: PlanView) -> Look:
        """The teacher, map and weighting on screen. Raises BadInput for what is not listed."""
        return look_at(self.store, shown.teacher, shown.map, shown.weighting, shown.weights)

    def draft(self, look: Look) -> Draft:
        """The plan of this teacher as it is on disk."""
        return draft.load(self.store.workspace, look.teacher)

    # --- showing ----------------------------------------------------------------------------------

    def painted(
        self, shown: PlanView, look: Look, state: Draft, places: list[int], message: str = ""
    ) -> Changes:
        """Values of all widgets that change with the plan; `places` are selected.

        The map's value leaves the selection out, unless an address gives it: it is the browser's,
        and may be another by now.
        """
        plan = state.plan
        heat: dict[str, Any] = {
            "version": state.version,
            "teacher": shown.teacher,
            "plan": charts.plan_rows(plan, look.teacher),
        }
        asked = view.asked_places(shown.heat, look.teacher)
        if asked is not None:
            heat["select"] = asked
        changes: Changes = {
            "heat": heat,
            "budget": view.budget(plan, look.teacher, look.sensitivity),
            "message": message,
            "steps": self.steps(shown, look.teacher, plan),
        }
        for paint in self.painters:
            changes |= paint(plan, look, places)
        return changes

    def steps(self, shown: PlanView, teacher: Teacher, plan: Plan) -> str:
        """The way from the teacher to a released student of this plan, for the top of the page."""
        return steps.steps_html(steps.path(self.store, shown.teacher or "", teacher, plan))

    # --- changing ---------------------------------------------------------------------------------

    def apply(self, shown: PlanView, change: Change) -> Changes:
        """Change the plan on disk and show it.

        What cannot be done becomes one line; the plan and the selection stay as they are.
        """
        look = self.look(shown)
        places = view.selected_places(shown.heat, look.teacher)
        selection = view.by_stack(look.teacher, places)
        message = ""
        try:
            self.access.check_change()
            state = draft.change(
                self.store.workspace,
                look.teacher,
                view.version(shown.heat),
                lambda current: change(current, look, selection),
                view.window(shown.heat),
            )
        except BadInput as error:
            state = self.draft(look)
            message = problem(str(error))
        return self.painted(shown, look, state, places, message)

    def receive(self, sent: object) -> dict[str, Any]:
        """A batch of edits that a window sent (edits.js), applied in its order; the plan after it.

        Never raises: a window that got no answer would send the batch again.
        """
        try:
            return self.edited(edit_stream.read(sent))
        except BadInput as error:
            return refused(str(error))
        except Exception as error:  # our fault: the log has the rest
            traceback.print_exc()
            return refused(fault(error))

    def edited(self, batch: edit_stream.Batch) -> dict[str, Any]:
        """The plan after a batch, and the edits that were refused."""
        self.access.check_change()
        teacher = catalogue.teacher(self.store, batch.teacher)
        refusals: list[edit_stream.Refusal] = []

        def change(current: Draft) -> Draft:
            after, refused_edits = edit_stream.applied(current, batch, teacher)
            refusals.extend(refused_edits)
            return after

        state = draft.change(self.store.workspace, teacher, None, change, batch.window)
        return {
            "version": state.version,
            "plan": charts.plan_rows(state.plan, teacher),
            "refused": [refusal.as_data() for refusal in refusals],
        }


def refused(reason: str) -> dict[str, Any]:
    """The answer to a batch of which nothing was applied."""
    return {"refused": [edit_stream.Refusal(0, reason).as_data()]}
