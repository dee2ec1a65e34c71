"""The panel "Block": one block's scores by timestep and by part, and every edit of every block."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from .. import charts
from ..charts.view import Look, block_chart, edits_chart, part_chart, part_rows
from . import view
from .address import AT_LOAD, Address, while_open
from .components import LAST, figure, spec_of
from .forms import Changes, Readable, connect
from .plan_state import PlanState, PlanView
from .text import about, notice

NO_MAP = "This teacher has no sensitivity map yet: no block has a score."
NO_BLOCK = "Select a block on the map: its scores over the timesteps and by part appear here."


class BlockPanel:
    tab: gr.Tab

    def __init__(self, state: PlanState):
        self.state = state

    def build(self) -> None:
        self.about = gr.HTML(elem_id="block-about")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.profile = figure(elem_id="block-profile")
            with gr.Column(scale=2, min_width=300):
                self.parts = figure(elem_id="block-parts")
        self.edits = figure(elem_id="every-edit")

    def wire(self, address: Address) -> None:
        state = self.state
        block = {"about": self.about, "profile": self.profile, "parts": self.parts}
        inputs: list[Readable] = [address.input, state.fields]
        select = while_open("block", self.on_select)
        connect([state.heat.select], select, inputs, block, js=AT_LOAD, **LAST)
        # Not on the teacher's own event: its maps are not listed yet then, and the old one would be
        # refused.
        views = [
            self.tab.select,
            state.map.change,
            state.weighting.input,
            state.weights.submit,
            state.colour.input,
        ]
        look = while_open("block", self.on_look)
        connect(views, look, inputs, {**block, "edits": self.edits}, js=AT_LOAD, **LAST)

    def on_select(self, shown: PlanView) -> Changes:
        """Another block."""
        look = self.state.look(shown)
        return block_details(look, view.selected_places(shown.heat, look.teacher), is_log(shown))

    def on_look(self, shown: PlanView) -> Changes:
        """Another map, weighting or colour scale."""
        look = self.state.look(shown)
        chart = edits_chart(look, log=is_log(shown))
        return {**self.on_select(shown), "edits": spec_of(chart)}


def is_log(shown: PlanView) -> bool:
    return shown.colour != "linear"


def block_details(look: Look, places: list[int], log: bool) -> Changes:
    """The first selected block: in words, over the timesteps, by part."""
    empty = {"profile": spec_of(None), "parts": spec_of(None)}
    if look.sensitivity is None:
        return {"about": notice(NO_MAP), **empty}
    if not places:
        return {"about": notice(NO_BLOCK), **empty}
    path, blocks = next(iter(view.by_stack(look.teacher, places).items()))
    block = blocks[0]
    profile = block_chart(look, path, block, log=log)
    parts = part_rows(look, path, block)
    title = f"<b>Block {block} of {escape(path)}</b>"
    if len(places) > 1:
        title += " (the first selected)"
    return {
        "about": about(f"{title}. {explained(profile, parts)}"),
        "profile": spec_of(profile),
        "parts": spec_of(part_chart(look, path, block)),
    }


def explained(profile: Any | None, parts: charts.Rows) -> str:
    """What the two charts show of a block, or why they are empty."""
    sentences = []
    if profile is not None:
        sentences.append("Bands and bars show one standard error.")
    elif parts:
        sentences.append("This map has no timesteps.")
    else:
        sentences.append("This map has no score of it.")
    if all(row["part"] == "whole block" for row in parts):
        sentences.append(
            "None of its parts was measured: profile with edits like drop:attn to see which "
            "matters."
        )
    return " ".join(sentences)
