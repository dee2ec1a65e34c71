"""One prompt through two models, live: asked of the resident session process, which keeps them
warm. This page only waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from ..records import BadInput
from ..workspace import session_client as requests
from ..workspace.store import Store
from . import catalogue
from .components import QUIET
from .inputs import whole
from .text import duration, notice, problem


class LivePanel:
    def __init__(self, store: Store):
        self.store = store

    def build(self) -> None:
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.left = gr.Dropdown([], label="Left", elem_id="live-left", scale=2, min_width=140)
            self.right = gr.Dropdown(
                [], label="Right", elem_id="live-right", scale=2, min_width=140
            )
            self.seed = gr.Number(
                0, label="Seed of both", precision=0, elem_id="live-seed", scale=1, min_width=90
            )
            self.steps = gr.Number(
                0,
                label="Steps (0: usual)",
                precision=0,
                elem_id="live-steps",
                scale=1,
                min_width=80,
            )
            self.guidance = gr.Number(
                0, label="Guidance (0: usual)", elem_id="live-guidance", scale=1, min_width=80
            )
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.prompt = gr.Textbox(
                "a red circle left of a blue square",
                label="Prompt",
                elem_id="live-prompt",
                scale=5,
                min_width=200,
                max_length=4000,
            )
            self.go = gr.Button(
                "Generate", variant="primary", elem_id="live-go", scale=1, min_width=100
            )
        self.said = gr.HTML(elem_id="live-message")
        self.slider = gr.ImageSlider(
            format="png", interactive=False, elem_id="live-slider", max_height=460, show_label=False
        )
        self.asked: gr.State = gr.State(None)  # (request, when)
        self.timer = gr.Timer(0.7, active=False)

    def wire(self) -> None:
        fields = [self.left, self.right, self.prompt, self.seed, self.steps, self.guidance]
        outputs = [self.asked, self.timer, self.said, self.slider]
        for event in (self.go.click, self.prompt.submit):
            event(self.on_go, [self.asked, *fields], outputs, **QUIET)
        self.timer.tick(self.on_tick, self.asked, outputs, **QUIET)

    def on_go(
        self, asked: Any, left: str, right: str, prompt: str, seed: Any, steps: Any, guidance: Any
    ) -> list[Any]:
        """Ask; an earlier question that nobody waits for any more is withdrawn."""
        try:
            known = {value for _, value in catalogue.models(self.store)}
            if not {left, right} <= known:
                raise BadInput("a side has no model", "two models of the list", "choose them")
            if guidance is not None and not (
                isinstance(guidance, int | float) and 0 <= guidance <= 100
            ):
                raise BadInput(f"guidance {guidance!r}", "a number from 0 to 100", "change it")
            if asked:
                requests.forget(self.store, asked[0])
            spec = {
                "models": [left, right],
                "prompt": str(prompt)[:4000],
                "seed": whole(seed, 0, 2**53, "seed"),
                "steps": whole(steps, 0, 1000, "steps") or None,
                "guidance": guidance or None,
            }
            number = requests.request(self.store, "generate", spec)
        except BadInput as error:
            return [gr.skip(), gr.skip(), problem(str(error)), gr.skip()]
        return [
            (number, time.time()),
            gr.Timer(active=True),
            notice("Asked the session; the first time it loads the models."),
            gr.skip(),
        ]

    def on_tick(self, asked: Any) -> list[Any]:
        """Has it answered?"""
        return answered(
            self.store, asked, lambda result: (told(result), tuple(map(str, result["images"][:2])))
        )


def answered(
    store: Store, asked: Any, show: Callable[[dict[str, Any]], tuple[Any, Any]]
) -> list[Any]:
    """What a page shows of a question to the session: (asked, timer, words, pictures).
    `show(result)` gives the last two.
    """
    if not asked:
        return [gr.skip(), gr.Timer(active=False), gr.skip(), gr.skip()]
    try:
        answer = requests.result(store, asked[0])
    except BadInput as error:
        return [None, gr.Timer(active=False), problem(str(error)), gr.skip()]
    if answer["state"] == "failed":
        return [
            None,
            gr.Timer(active=False),
            problem(answer["error"] or "the session gave no reason"),
            gr.skip(),
        ]
    if answer["state"] != "done":
        return [gr.skip(), gr.skip(), notice(waiting(answer, time.time() - asked[1])), gr.skip()]
    return [None, gr.Timer(active=False), *show(answer["result"])]


def waiting(answer: dict[str, Any], seconds: float) -> str:
    """What the session is at, and for how long one has waited."""
    if answer["state"] == "running":
        what = str((answer["result"] or {}).get("message") or "The session has begun")
    else:
        what = "Waiting for the session: its process starts (some seconds the first time), or a job holds the device"
    return f"{what} … {duration(seconds)}."


def told(result: dict[str, Any]) -> str:
    """Which model took how long."""
    names, seconds = result.get("names") or [], result.get("seconds") or []
    parts = [
        f"{escape(Path(str(n)).name)}: {s:.2f} s" for n, s in zip(names, seconds, strict=False)
    ]
    return f"<div class='wb-about'>left | right, same prompt and seed. {' · '.join(parts)}</div>"
