"""Under a finished distillation: what training recovered of each span, beside the blocks' scores in
the teacher's map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from .. import charts
from ..records import BadInput, Card, SensitivityMap, Teacher
from ..workspace import jobs
from ..workspace.jobs import Job
from ..workspace.store import Store
from . import catalogue
from .components import LAST, OPEN, figure, spec_of
from .forms import Changes, Fields, connect
from .text import about, notice


@dataclass(frozen=True)
class RecoveryForm:
    """The value of the list of jobs, and the stage of the recipe that is shown."""

    jobs: Any = None
    stage: str | None = None


class RecoveryPanel:
    def __init__(self, store: Store):
        self.store = store

    def build(self) -> None:
        with gr.Accordion(
            "What training recovered", open=True, visible=False, elem_id="recovery-panel"
        ) as self.box:
            self.stage = gr.Dropdown([], label="Stage", elem_id="recovery-stage", **OPEN)
            self.figure = figure(elem_id="recovery")
            self.about = gr.HTML(elem_id="recovery-about")

    def wire(self, demo: gr.Blocks, job_list: gr.HTML) -> None:
        outputs = {
            "box": self.box,
            "stage": self.stage,
            "figure": self.figure,
            "about": self.about,
        }
        form = Fields(RecoveryForm, jobs=job_list, stage=self.stage)
        events = [demo.load, job_list.select, job_list.change, self.stage.input]
        connect(events, self.on_job, [form], outputs, **LAST)

    def on_job(self, form: RecoveryForm) -> Changes:
        """The chosen job's spans; nothing where it is not a finished distillation."""
        hidden = {"box": gr.Accordion(visible=False), "figure": spec_of(None), "about": ""}
        try:
            job = jobs.show(self.store, str(form.jobs["selected"]))
            rows, card = measured_spans(job)
        except (BadInput, KeyError, TypeError):
            return hidden
        stages = charts.stages(rows)
        stage = stages[-1]
        if form.stage in stages:
            stage = str(form.stage)
        teacher = teacher_of(self.store, card, stage)
        shown: Changes = {
            "box": gr.Accordion(visible=True),
            "stage": gr.Dropdown(choices=stages, value=stage, visible=len(stages) > 1),
        }
        if teacher is None:
            message = notice("This student's teacher is not in the workspace.")
            return {**shown, "figure": spec_of(None), "about": message}
        drawn = charts.recovery_rows(rows, teacher, drop_map(self.store, teacher), stage=stage)
        if not drawn["spans"]:
            return hidden
        return {**shown, "figure": spec_of(charts.recovery_chart(drawn)), "about": explained(drawn)}


def measured_spans(job: Job) -> tuple[list[dict[str, Any]], Card]:
    """What a finished distillation measured of each span, and its student's card.

    Raises BadInput for any other job.
    """
    result = job.result
    rows: list[dict[str, Any]] = []
    if job.kind == "distill" and job.state == "done" and isinstance(result, dict):
        rows = result.get("recoverability") or []
    if not charts.stages(rows):
        raise BadInput(
            f"job {job.id} measured no span", "a finished distillation", "choose another job"
        )
    return rows, Card.load(Path(str(result["student"])) / "card.json")


def teacher_of(store: Store, card: Card, stage: str) -> Teacher | None:
    """The teacher whose blocks the stage's spans count: the original one, or the parent."""
    name = card.original
    for row in (card.spec or {}).get("stages", []):
        if str(row.get("name")) == stage and row.get("teacher") == "parent":
            name = card.teacher
    if name in catalogue.BUNDLED:
        return catalogue.teacher(store, name)
    for row in store.teachers():
        if row.teacher == name:
            return catalogue.teacher(store, row.path)
    return None


def drop_map(store: Store, of: Teacher) -> SensitivityMap | None:
    """The newest map of this teacher with scores of dropped blocks."""
    for _, path in catalogue.maps(store, of):
        sensitivity = catalogue.sensitivity(store, of, path)
        if sensitivity is None:
            continue
        if sensitivity.metric == "prediction" and "drop" in sensitivity.edits:
            return sensitivity
    return None


def explained(rows: dict[str, charts.Rows]) -> str:
    """What is drawn, in words."""
    text = (
        "Distance of each span's output from the teacher's, given the teacher's states, before and "
        "after training (normalised feature loss, log scale)"
    )
    if rows["blocks"]:
        text += (
            "; below, how much the prediction changes when a block is dropped (mean over "
            "timesteps, log scale)"
        )
    return about(f"{text}.")
