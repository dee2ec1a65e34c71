"""The form that edits the selected student blocks: stream, initialisation, gain, modulation, parts.

The controls are the browser's own (blockform.js). What is set there is an edit of the plan like a
mark, in one order with the others (edit_stream.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import gradio as gr

from .. import plans
from ..charts.view import Look
from ..plans.editing import span_fields
from ..records import Init, Plan, Teacher
from . import view
from .components import block_form
from .forms import Changes
from .plan_state import PlanState
from .text import count, plural

STREAM_LABELS = {"slim": "text-slim"}
STREAMS = [(STREAM_LABELS.get(name, name), name) for name in span_fields.STREAMS]
INITS = [(name, name) for name in get_args(Init)]
GAINS = [("1", "1"), ("span length", "length"), ("2", "2"), ("3", "3")]


class HandPanel:
    def __init__(self, state: PlanState):
        self.state = state

    def build(self) -> None:
        self.state.plan_widgets |= {"hand": block_form(elem_id="hand"), "free": self.free}
        self.state.painters.append(self.paint)

    def build_free_cut(self) -> None:
        """A button that is placed beside the marks."""
        self.free = gr.Button(
            "Drop unused parts", elem_id="free-cut", size="sm", visible=False, min_width=120
        )

    def paint(self, plan: Plan, look: Look, places: list[int]) -> Changes:
        """The form for the selected student blocks; a field they do not share is empty."""
        common = span_fields.state(plan, look.teacher, view.by_stack(look.teacher, places))
        return {"hand": form_of(common), "free": free_cut_button(plan, look.teacher)}


def form_of(common: span_fields.State) -> dict[str, Any]:
    """The form's value: what the selected blocks have in common, and what can be chosen."""
    some = common.count > 0
    title = "Dropped parts"
    if some:
        title += f" ({plural(common.count, 'student block')} selected)"
    fields = [
        control("stream", "Stream", "radios", STREAMS, common.stream, some and common.single),
        control("init", "Initialisation", "list", INITS, common.init, common.init is not None),
        control("gain", "Gain", "text", GAINS, common.gain, some),
        control(
            "modulation",
            "Modulation",
            "list",
            common.modulations,
            common.modulation,
            some and not common.no_modulation,
            refused_rank(common),
        ),
    ]
    parts = [[name, name in common.drop] for name in common.parts]
    return {"title": title, "fields": fields, "parts": parts}


def control(
    name: str,
    label: str,
    kind: str,
    choices: Sequence[tuple[str, str]],
    value: str | None,
    enabled: bool,
    info: str = "",
) -> dict[str, Any]:
    """One field of the form. name: the verb of its edit. value: None where the blocks differ."""
    return {
        "name": name,
        "label": label,
        "kind": kind,
        "choices": [list(choice) for choice in choices],
        "value": value,
        "enabled": enabled,
        "info": info,
    }


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
