"""Preview: one prompt through the teacher as the plan would have it, nothing built; the teacher's
own picture beside it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..records import BadInput
from ..workspace import session_client as requests
from . import catalogue, draft
from .components import QUIET
from .inputs import whole
from .live import answered
from .text import duration, figure, notice, problem

if TYPE_CHECKING:
    from .plan_page import PlanPage


class PreviewPanel:
    def __init__(self, page: PlanPage):
        self.page = page

    def build(self) -> None:
        gr.HTML(
            "<div class='wb-about'>The plan as it stands, before any training: the loaded "
            "teacher is re-wired, nothing is written. "
            "Expect a rough picture; distilling mends it. The error is measured on the "
            "teacher's own trajectory, in the unit of "
            "the map.</div>"
        )
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.prompt = gr.Textbox(
                "a red circle left of a blue square",
                label="Prompt",
                elem_id="preview-prompt",
                scale=5,
                min_width=200,
                max_length=4000,
            )
            self.seed = gr.Number(
                0, label="Seed", precision=0, elem_id="preview-seed", scale=1, min_width=80
            )
            self.steps = gr.Number(
                0,
                label="Steps (0: usual)",
                precision=0,
                elem_id="preview-steps",
                scale=1,
                min_width=110,
            )
            self.go = gr.Button(
                "Preview", variant="primary", elem_id="preview-go", scale=0, min_width=110
            )
        self.said = gr.HTML(elem_id="preview-message")
        self.slider = gr.ImageSlider(
            format="png",
            interactive=False,
            elem_id="preview-slider",
            max_height=460,
            show_label=False,
            visible=False,
        )
        self.asked: gr.State = gr.State(None)  # (request, when, version of the plan)
        self.timer = gr.Timer(0.7, active=False)

    def wire(self) -> None:
        outputs = [self.asked, self.timer, self.said, self.slider]
        for event in (self.go.click, self.prompt.submit):
            event(
                self.on_go,
                [self.asked, self.page.teacher, self.prompt, self.seed, self.steps],
                outputs,
                **QUIET,
            )
        self.timer.tick(self.on_tick, self.asked, outputs, **QUIET)

    def on_go(self, asked: Any, key: str | None, prompt: str, seed: Any, steps: Any) -> list[Any]:
        """Ask; an earlier question that nobody waits for any more is withdrawn."""
        store = self.page.store
        try:
            teacher = catalogue.teacher(store, key)
            state = draft.load(store.workspace, teacher)
            if asked:
                requests.forget(store, asked[0])
            spec = {
                "teacher": teacher.name,
                "plan": state.plan.as_yaml(),
                "prompts": [str(prompt)[:4000]],
                "seeds": [whole(seed, 0, 2**53, "seed")],
                "steps": whole(steps, 0, 1000, "steps") or None,
            }
            number = requests.request(store, "preview", spec)
        except BadInput as error:
            return [gr.skip(), gr.skip(), problem(str(error)), gr.skip()]
        return [
            (number, time.time()),
            gr.Timer(active=True),
            notice("Asked the session; the first time it loads the teacher."),
            gr.skip(),
        ]

    def on_tick(self, asked: Any) -> list[Any]:
        """Has it answered?"""
        return answered(self.page.store, asked, shown)


def shown(result: dict[str, Any]) -> tuple[str, gr.ImageSlider]:
    """The error in words, and the two pictures."""
    words = (
        f"<div class='wb-about'>teacher | student, same prompt and seed. Relative error of "
        f"the prediction: "
        f"<b>{figure(result['error'], 2)}</b> (0 = the teacher). Student sampled in "
        f"{duration(result['seconds'])}.</div>"
    )
    return words, gr.ImageSlider(value=(result["teacher"][0], result["student"][0]), visible=True)
