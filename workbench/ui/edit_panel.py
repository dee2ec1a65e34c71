"""The form that edits the selected student blocks: stream, initialisation, gain, modulation, parts.

Each change is one step of the plan's history; its cost is shown at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr
from gradio.blocks import Block

from .. import plans
from ..charts.view import Look
from ..plans.editing import span_fields
from ..plans.editing.selection import edited_origin
from ..records import Init, Plan, Teacher
from . import view
from .components import QUIET
from .draft import Draft
from .forms import Changes, Fields, connect
from .plan_state import PlanState, PlanView, Selection
from .text import count, plural

STREAM_LABELS = {"slim": "text-slim"}
STREAMS = [(STREAM_LABELS.get(name, name), name) for name in span_fields.STREAMS]
GAINS = [("1", "1"), ("span length", "length"), ("2", "2"), ("3", "3")]


@dataclass(frozen=True)
class HandForm:
    """The form as the browser sent it; None where the selected blocks differ."""

    stream: str | None = None
    init: str | None = None
    gain: object = None
    modulation: str | None = None
    parts: list[str] | None = None


class HandPanel:
    def __init__(self, state: PlanState):
        self.state = state

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="wb-bar wb-hand", equal_height=False):
            self.stream = gr.Radio(
                STREAMS,
                label="Stream",
                elem_id="hand-stream",
                interactive=False,
                scale=1,
                min_width=300,
            )
            self.init = gr.Dropdown(
                list(get_args(Init)),
                value=None,
                label="Initialisation",
                elem_id="hand-init",
                interactive=False,
                scale=1,
                min_width=130,
            )
            self.gain = gr.Dropdown(
                GAINS,
                value=None,
                label="Gain",
                elem_id="hand-gain",
                interactive=False,
                allow_custom_value=True,
                scale=1,
                min_width=160,
            )
            self.modulation = gr.Dropdown(
                [],
                value=None,
                label="Modulation",
                elem_id="hand-modulation",
                interactive=False,
                scale=1,
                min_width=200,
            )
            self.parts = gr.CheckboxGroup(
                [],
                label="Dropped parts",
                elem_id="hand-parts",
                interactive=False,
                scale=5,
                min_width=240,
            )
        self.state.plan_widgets |= self.widgets
        self.state.painters.append(self.paint)

    def build_free_cut(self) -> None:
        """A button that is placed beside the marks."""
        self.free = gr.Button(
            "Drop unused parts", elem_id="free-cut", size="sm", visible=False, min_width=120
        )

    @property
    def widgets(self) -> dict[str, Block]:
        return {
            "stream": self.stream,
            "init": self.init,
            "gain": self.gain,
            "modulation": self.modulation,
            "parts": self.parts,
            "free": self.free,
        }

    def wire(self) -> None:
        fields = Fields(
            HandForm,
            stream=self.stream,
            init=self.init,
            gain=self.gain,
            modulation=self.modulation,
            parts=self.parts,
        )
        handlers = {
            self.stream.input: self.on_stream,
            self.init.input: self.on_init,
            self.gain.input: self.on_gain,
            self.modulation.input: self.on_modulation,
            self.parts.input: self.on_parts,
            self.free.click: self.on_free_cut,
        }
        for event, handler in handlers.items():
            connect([event], handler, [self.state.fields, fields], self.state.plan_widgets, **QUIET)

    # --- what is shown ----------------------------------------------------------------------------

    def paint(self, plan: Plan, look: Look, places: list[int]) -> Changes:
        """The form for the selected student blocks; a field they do not share is empty."""
        common = span_fields.state(plan, look.teacher, view.by_stack(look.teacher, places))
        some = common.count > 0
        label = "Dropped parts"
        if some:
            label += f" ({plural(common.count, 'student block')} selected)"
        return {
            "stream": gr.Radio(
                choices=STREAMS,
                value=common.stream,
                interactive=some and common.single,
            ),
            "init": gr.Dropdown(
                choices=list(get_args(Init)),
                value=common.init,
                interactive=some and common.init is not None,
            ),
            "gain": gr.Dropdown(
                choices=GAINS, value=common.gain, allow_custom_value=True, interactive=some
            ),
            "modulation": modulation_list(common),
            "parts": gr.CheckboxGroup(
                choices=list(common.parts), value=list(common.drop), label=label, interactive=some
            ),
            "free": free_cut_button(plan, look.teacher),
        }

    # --- changes ----------------------------------------------------------------------------------

    def change(self, shown: PlanView, **what: Any) -> Changes:
        """Change the selected student blocks: see `span_fields.change`."""

        def change(current: Draft, look: Look, selection: Selection) -> Draft:
            return current.to(span_fields.change(current.plan, look.teacher, selection, **what))

        return self.state.apply(shown, change)

    def on_stream(self, shown: PlanView, form: HandForm) -> Changes:
        return self.change(shown, stream=form.stream)

    def on_init(self, shown: PlanView, form: HandForm) -> Changes:
        return self.choose(shown, "init", form.init)

    def on_gain(self, shown: PlanView, form: HandForm) -> Changes:
        return self.choose(shown, "gain", form.gain)

    def on_modulation(self, shown: PlanView, form: HandForm) -> Changes:
        return self.choose(shown, "modulation", form.modulation)

    def choose(self, shown: PlanView, field: str, value: object) -> Changes:
        """Set one field of the selected student blocks to the value of a list.

        A list reports a choice twice, when it is made and when the list loses the focus. The second
        time the plan says so already, and the version that the window names is an older one.
        """
        look = self.state.look(shown)
        selection = view.by_stack(look.teacher, view.selected_places(shown.heat, look.teacher))
        now = span_fields.state(self.state.draft(look).plan, look.teacher, selection)
        if value in (None, "", getattr(now, field)):
            return {}
        return self.change(shown, **{field: value})

    def on_parts(self, shown: PlanView, form: HandForm) -> Changes:
        """Of blocks that differ, only what was ticked or unticked changes."""
        parts = [str(part) for part in form.parts or []]

        def change(current: Draft, look: Look, selection: Selection) -> Draft:
            before = span_fields.state(current.plan, look.teacher, selection).drop
            plan = span_fields.change(
                current.plan,
                look.teacher,
                selection,
                drop=[part for part in parts if part not in before],
                restore=[part for part in before if part not in parts],
            )
            return current.to(plan)

        return self.state.apply(shown, change)

    def on_free_cut(self, shown: PlanView, form: HandForm) -> Changes:
        """Drop the parts that no output depends on."""

        def change(current: Draft, look: Look, _: Selection) -> Draft:
            plan = plans.cut_free(current.plan, look.teacher)
            plan = plan.model_copy(update={"origin": edited_origin(current.plan)})
            return current.to(plans.check(plan, look.teacher))

        return self.state.apply(shown, change)


def modulation_list(common: span_fields.State) -> gr.Dropdown:
    """The ranks that the selected blocks can have; why they have none, where they have none."""
    return gr.Dropdown(
        choices=list(common.modulations),
        value=common.modulation,
        info=refused_rank(common),
        interactive=common.count > 0 and not common.no_modulation,
    )


def refused_rank(common: span_fields.State) -> str:
    """Why the selected blocks cannot have a rank, as a sentence; empty where they can."""
    if not common.no_modulation:
        return ""
    return f"No rank: {common.no_modulation}."


def free_cut_button(plan: Plan, teacher: Teacher) -> gr.Button:
    """Offers the parts that no output depends on, with the parameters they hold."""
    cuts = plans.free_cuts(plan, teacher)
    parts = ", ".join(f"{cut.drop} of block {cut.block}" for cut in cuts)
    saved = sum(cut.parameters for cut in cuts)
    return gr.Button(value=f"Drop unused {parts} ({count(saved)})", visible=bool(cuts))
