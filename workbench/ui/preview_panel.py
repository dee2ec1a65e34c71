"""Preview: one prompt through the teacher with the plan applied in memory, beside the teacher's own
picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ..workspace.session_client import PreviewRequest, PreviewResult
from . import catalogue, draft, session_request
from .components import QUIET
from .forms import Changes, Fields, Readable, connect
from .inputs import whole
from .plan_state import PlanState, PlanView
from .session_request import Pending, Pictures
from .text import about, duration, figure

ABOUT = (
    "The plan before any training: it is applied to the loaded teacher in memory, nothing is "
    "written. Expect a rough picture; distillation repairs it. The error is measured on the "
    "teacher's own sampling trajectory, in the unit of the map. A rank of modulation uses the "
    "conditioning vectors that were recorded with the chosen map, where the family needs them."
)


@dataclass(frozen=True)
class PreviewForm:
    pending: Pending | None = None
    prompt: str = ""
    seed: object = 0
    steps: object = 0


class PreviewPanel:
    def __init__(self, state: PlanState):
        self.state = state

    def build(self) -> None:
        gr.HTML(about(ABOUT))
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
                label="Steps (0: default)",
                precision=0,
                elem_id="preview-steps",
                scale=1,
                min_width=110,
            )
            self.run = gr.Button(
                "Preview", variant="primary", elem_id="preview-run", scale=0, min_width=110
            )
        self.message = gr.HTML(elem_id="preview-message")
        self.slider = gr.ImageSlider(
            format="png",
            interactive=False,
            elem_id="preview-slider",
            max_height=460,
            show_label=False,
            visible=False,
        )
        self.pending: gr.State = gr.State(None)
        self.timer = gr.Timer(0.7, active=False)

    def wire(self) -> None:
        outputs = {
            "pending": self.pending,
            "timer": self.timer,
            "message": self.message,
            "slider": self.slider,
        }
        form = Fields(
            PreviewForm,
            pending=self.pending,
            prompt=self.prompt,
            seed=self.seed,
            steps=self.steps,
        )
        inputs: list[Readable] = [self.state.fields, form]
        events = [self.run.click, self.prompt.submit]
        connect(events, self.on_run, inputs, outputs, settled=True, **QUIET)
        connect([self.timer.tick], self.on_tick, [form], outputs, **QUIET)

    def on_run(self, shown: PlanView, form: PreviewForm) -> Changes:
        store = self.state.store
        teacher = catalogue.teacher(store, shown.teacher)
        request = PreviewRequest(
            teacher=teacher.name,
            plan=draft.load(store.workspace, teacher).plan,
            prompts=[str(form.prompt)[:4000]],
            seeds=[whole(form.seed, 0, 2**53, "seed")],
            steps=whole(form.steps, 0, 1000, "steps") or None,
            conditioning=catalogue.vectors_beside(store, teacher, shown.map),
        )
        return session_request.submit(self.state.access, "preview", request, form.pending)

    def on_tick(self, form: PreviewForm) -> Changes:
        return session_request.poll(self.state.store, form.pending, shown_result)


def shown_result(result: PreviewResult) -> tuple[str, Pictures]:
    """The error in words, and the two pictures."""
    text = about(
        "teacher | student, same prompt and seed. Relative error of the prediction: "
        f"<b>{figure(result.error, 2)}</b> (0: identical to the teacher). Student sampled in "
        f"{duration(result.seconds)}."
    )
    return text, (result.teacher[0], result.student[0])
