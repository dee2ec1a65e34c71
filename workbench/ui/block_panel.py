"""Look closer: the selected block over the timesteps and by its parts; and every edit of every
block at once.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..charts.view import Look, block_chart, edits_chart, part_chart, part_rows
from ..records import BadInput
from . import view
from .components import LAST, figure
from .text import notice

if TYPE_CHECKING:
    from .plan_page import PlanPage


class BlockPanel:
    tab: gr.Tab

    def __init__(self, page: PlanPage):
        self.page = page

    def build(self) -> None:
        self.told = gr.HTML(elem_id="block-told")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.profile = figure(elem_id="block-profile")
            with gr.Column(scale=2, min_width=300):
                self.parts = figure(elem_id="block-parts")
        self.every = figure(elem_id="every-edit")

    def wire(self) -> None:
        page = self.page
        at = [page.heat, *page.sight, page.colour]
        block, every = (
            [self.told, self.profile, self.parts],
            [self.told, self.profile, self.parts, self.every],
        )
        page.heat.select(self.on_select, at, block, **LAST)
        page.boxes.input(self.on_select, at, block, **LAST)
        # Not on the teacher's own event: its maps are listed by then, and the old one would be
        # refused.
        for event in (
            self.tab.select,
            page.map.change,
            page.weighting.input,
            page.given.submit,
            page.colour.input,
        ):
            event(self.on_look, at, every, **LAST)

    def on_select(
        self,
        heat: Any,
        key: str | None,
        chosen_map: str | None,
        weighting: str,
        given: str,
        colour: str,
    ) -> list[Any]:
        """Another block."""
        try:
            seen = self.page.look(key, chosen_map, weighting, given)
        except BadInput:
            return [gr.skip()] * 3
        return self.drawn(seen, view.selected(heat, seen.teacher), colour != "linear")

    def on_look(
        self,
        heat: Any,
        key: str | None,
        chosen_map: str | None,
        weighting: str,
        given: str,
        colour: str,
    ) -> list[Any]:
        """Another map, or the same seen otherwise."""
        try:
            seen = self.page.look(key, chosen_map, weighting, given)
        except BadInput:
            return [gr.skip()] * 4
        log = colour != "linear"
        return [
            *self.drawn(seen, view.selected(heat, seen.teacher), log),
            spec(edits_chart(seen, log=log)),
        ]

    def drawn(self, seen: Look, places: list[int], log: bool) -> list[Any]:
        """In words, over the timesteps, by parts: the first selected block."""
        nothing = gr.HTML(spec=None)
        if seen.sensitivity is None:
            return [
                notice(
                    "This teacher has no sensitivity map yet: there is nothing to look at closely."
                ),
                nothing,
                nothing,
            ]
        if not places:
            return [
                notice(
                    "Select a block on the map: its scores over the timesteps and by part "
                    "appear here."
                ),
                nothing,
                nothing,
            ]
        (path, blocks), *_ = view.by_stack(seen.teacher, places).items()
        block = blocks[0]
        profile, found = block_chart(seen, path, block, log=log), part_rows(seen, path, block)
        words = f"<b>Block {block} of {escape(path)}</b>{' (the first selected)' if len(places) > 1 else ''}."
        words += " Bands and bars show one standard error." if profile else ""
        words += (
            ""
            if profile
            else " This map has no timesteps."
            if found
            else " This map has no score of it."
        )
        words += (
            ""
            if any(row["part"] != "whole block" for row in found)
            else " No part of it was measured: profile with edits like drop:attn to see what "
            "carries it."
        )
        return [
            f"<div class='wb-about'>{words}</div>",
            spec(profile),
            spec(part_chart(seen, path, block)),
        ]


def spec(chart: Any | None) -> Any:
    """For a figure; an empty one for no chart."""
    return gr.HTML(spec=chart.to_dict(validate=False) if chart else None)
