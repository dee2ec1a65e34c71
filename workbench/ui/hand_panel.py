"""By hand: what the student blocks of the selection are made of. Each click is one change of the
plan, with its figures at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from .. import plans
from ..plans.editing import student_blocks
from ..plans.editing.selection import edited_origin
from ..records import Init, Plan, Teacher
from . import draft, view
from .components import QUIET
from .text import count

if TYPE_CHECKING:
    from ..charts.view import Look
    from .plan_page import Changes, PlanPage

GAINS = [("1", "1"), ("span length", "length"), ("2", "2"), ("3", "3")]


class HandPanel:
    def __init__(self, page: PlanPage):
        self.page = page

    def build(self) -> None:
        with gr.Row(elem_classes="wb-bar wb-hand", equal_height=False):
            self.stream = gr.Radio(
                list(student_blocks.STREAMS),
                label="Stream (slim: the text is only read)",
                elem_id="hand-stream",
                interactive=False,
                scale=1,
                min_width=260,
            )
            self.init = gr.Dropdown(
                list(get_args(Init)),
                value=None,
                label="Starts from",
                elem_id="hand-init",
                interactive=False,
                scale=1,
                min_width=110,
            )
            self.gain = gr.Dropdown(
                GAINS,
                value=None,
                label="Gain",
                elem_id="hand-gain",
                interactive=False,
                allow_custom_value=True,
                scale=1,
                min_width=110,
            )
            self.parts = gr.CheckboxGroup(
                [],
                label="Parts that go",
                elem_id="hand-parts",
                interactive=False,
                scale=5,
                min_width=240,
            )

    def offer(self) -> None:
        """Stands with the marks."""
        self.free = gr.Button(
            "Free cut", elem_id="free-cut", size="sm", visible=False, min_width=120
        )

    def widgets(self) -> dict[str, Any]:
        return {
            "stream": self.stream,
            "init": self.init,
            "gain": self.gain,
            "parts": self.parts,
            "free": self.free,
        }

    def wire(self) -> None:
        page = self.page
        at = [page.heat, *page.sight]
        handlers = (
            (self.stream, self.on_stream),
            (self.init, self.on_init),
            (self.gain, self.on_gain),
            (self.parts, self.on_parts),
        )
        for widget, how in handlers:
            widget.input(page.named(how), [widget, *at], page.shown, **QUIET)
        self.free.click(page.named(self.on_free), at, page.shown, **QUIET)

    # --- what is shown ----------------------------------------------------------------------------

    def painted(self, plan: Plan, teacher: Teacher, places: list[int]) -> Changes:
        """The form as the selected student blocks stand; a field they do not share is empty."""
        state = student_blocks.state(plan, teacher, view.by_stack(teacher, places))
        some = state.count > 0
        label = (
            f"Parts that go ({state.count} student block{'s' * (state.count != 1)} selected)"
            if some
            else "Parts that go"
        )
        cuts = plans.free_cuts(plan, teacher)
        words = ", ".join(f"{cut.drop} of block {cut.block}" for cut in cuts)
        offered = f"Free cut: {words} ({count(sum(cut.parameters for cut in cuts))})"
        return {
            "stream": gr.Radio(
                choices=list(student_blocks.STREAMS),
                value=state.stream,
                interactive=some and state.single,
            ),
            "init": gr.Dropdown(
                choices=list(get_args(Init)),
                value=state.init,
                interactive=some and state.init is not None,
            ),
            "gain": gr.Dropdown(
                choices=GAINS, value=state.gain, allow_custom_value=True, interactive=some
            ),
            "parts": gr.CheckboxGroup(
                choices=list(state.parts), value=list(state.drop), label=label, interactive=some
            ),
            "free": gr.Button(value=offered, visible=bool(cuts)),
        }

    # --- changes ----------------------------------------------------------------------------------

    def changed(self, heat: Any, sight: tuple[Any, ...], **what: Any) -> Changes:
        def how(state: draft.Draft, seen: Look, selected: list[int]) -> draft.Draft:
            return state.to(
                student_blocks.change(
                    state.plan, seen.teacher, view.by_stack(seen.teacher, selected), **what
                )
            )

        return self.page.apply(heat, *sight, how=how)

    def on_stream(self, stream: str, heat: Any, *sight: Any) -> Changes:
        return self.changed(heat, sight, stream=stream)

    def on_init(self, init: str, heat: Any, *sight: Any) -> Changes:
        return self.changed(heat, sight, init=init)

    def on_gain(self, gain: Any, heat: Any, *sight: Any) -> Changes:
        return self.changed(heat, sight, gain=gain) if gain not in (None, "") else {}

    def on_parts(self, parts: list[str], heat: Any, *sight: Any) -> Changes:
        """Of blocks that differ, only what was ticked or unticked changes."""

        def how(state: draft.Draft, seen: Look, selected: list[int]) -> draft.Draft:
            chosen = view.by_stack(seen.teacher, selected)
            before = student_blocks.state(state.plan, seen.teacher, chosen).drop
            wanted = [str(part) for part in parts or []]
            return state.to(
                student_blocks.change(
                    state.plan,
                    seen.teacher,
                    chosen,
                    drop=[p for p in wanted if p not in before],
                    restore=[p for p in before if p not in wanted],
                )
            )

        return self.page.apply(heat, *sight, how=how)

    def on_free(self, heat: Any, *sight: Any) -> Changes:
        def how(state: draft.Draft, seen: Look, _: list[int]) -> draft.Draft:
            cut = plans.cut_free(state.plan, seen.teacher)
            return state.to(
                plans.check(
                    cut.model_copy(update={"origin": edited_origin(state.plan)}), seen.teacher
                )
            )

        return self.page.apply(heat, *sight, how=how)
