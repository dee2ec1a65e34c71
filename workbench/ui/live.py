"""One prompt through two models, side by side, made by the resident session process."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr

from ..records import BadInput
from ..workspace.session_client import GenerateRequest, GenerateResult
from ..workspace.store import Store
from . import catalogue, session_request
from .access import Access
from .components import QUIET
from .forms import Changes, Fields, connect
from .inputs import between, whole
from .session_request import Pending, Pictures
from .text import about


@dataclass(frozen=True)
class LiveForm:
    pending: Pending | None = None
    left: str | None = None
    right: str | None = None
    prompt: str = ""
    seed: object = 0
    steps: object = 0
    guidance: object = 0


class LivePanel:
    def __init__(self, store: Store, access: Access | None = None):
        self.store = store
        self.access = access or Access(store)

    def build(self) -> None:
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.build_settings()
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.prompt = gr.Textbox(
                "a red circle left of a blue square",
                label="Prompt",
                elem_id="live-prompt",
                scale=5,
                min_width=200,
                max_length=4000,
            )
            self.run = gr.Button(
                "Generate", variant="primary", elem_id="live-run", scale=1, min_width=100
            )
        self.message = gr.HTML(elem_id="live-message")
        self.slider = gr.ImageSlider(
            format="png",
            interactive=False,
            elem_id="live-slider",
            max_height=460,
            show_label=False,
            visible=False,
        )
        self.pending: gr.State = gr.State(None)
        self.timer = gr.Timer(0.7, active=False)

    def build_settings(self) -> None:
        self.left = gr.Dropdown([], label="Left", elem_id="live-left", scale=2, min_width=140)
        self.right = gr.Dropdown([], label="Right", elem_id="live-right", scale=2, min_width=140)
        self.seed = gr.Number(
            0, label="Seed of both", precision=0, elem_id="live-seed", scale=1, min_width=90
        )
        self.steps = gr.Number(
            0, label="Steps (0: default)", precision=0, elem_id="live-steps", scale=1, min_width=80
        )
        self.guidance = gr.Number(
            0, label="Guidance (0: default)", elem_id="live-guidance", scale=1, min_width=80
        )

    def wire(self) -> None:
        form = Fields(
            LiveForm,
            pending=self.pending,
            left=self.left,
            right=self.right,
            prompt=self.prompt,
            seed=self.seed,
            steps=self.steps,
            guidance=self.guidance,
        )
        outputs = {
            "pending": self.pending,
            "timer": self.timer,
            "message": self.message,
            "slider": self.slider,
        }
        connect([self.run.click, self.prompt.submit], self.on_run, [form], outputs, **QUIET)
        connect([self.timer.tick], self.on_tick, [form], outputs, **QUIET)

    def on_run(self, form: LiveForm) -> Changes:
        known = {value for _, value in catalogue.models(self.store)}
        if form.left not in known or form.right not in known:
            raise BadInput("a side without a model", "two models of the list", "choose them")
        guidance = 0.0
        if form.guidance is not None:
            guidance = between(form.guidance, 0, 100, "guidance")
        request = GenerateRequest(
            models=[form.left, form.right],
            prompt=str(form.prompt)[:4000],
            seed=whole(form.seed, 0, 2**53, "seed"),
            steps=whole(form.steps, 0, 1000, "steps") or None,
            guidance=guidance or None,
        )
        return session_request.submit(self.access, "generate", request, form.pending)

    def on_tick(self, form: LiveForm) -> Changes:
        return session_request.poll(self.store, form.pending, shown_result)


def shown_result(result: GenerateResult) -> tuple[str, Pictures]:
    """Which model took how long, and the two pictures."""
    times = [
        f"{escape(Path(name).name)}: {seconds:.2f} s"
        for name, seconds in zip(result.names, result.seconds, strict=True)
    ]
    left, right = result.images
    text = about(f"left | right, same prompt and seed. {' · '.join(times)}")
    return text, (left, right)
