"""Under a finished distillation: which spans it repaired, over what their blocks score in the
teacher's map.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from .. import charts
from ..records import BadInput, Card, SensitivityMap, Teacher
from ..workspace import jobs
from ..workspace.jobs import Job
from ..workspace.store import Store
from . import catalogue
from .components import LAST, OPEN, figure
from .text import notice


class RecoveryPanel:
    def __init__(self, store: Store):
        self.store = store

    def build(self) -> None:
        with gr.Accordion(
            "What training repaired", open=True, visible=False, elem_id="recovery-panel"
        ) as self.box:
            self.stage = gr.Dropdown([], label="Stage", elem_id="recovery-stage", **OPEN)
            self.figure = figure(elem_id="recovery")
            self.told = gr.HTML(elem_id="recovery-told")

    def wire(self, demo: gr.Blocks, listed: gr.HTML) -> None:
        shown = [self.box, self.stage, self.figure, self.told]
        for event in (demo.load, listed.select, listed.change):
            event(self.on_job, listed, shown, **LAST)
        self.stage.input(self.on_job, [listed, self.stage], shown, **LAST)

    def on_job(self, value: Any, stage: str | None = None) -> list[Any]:
        """The chosen job's recoverability; nothing where it is no finished distillation."""
        try:
            job = jobs.show(self.store, str(value["selected"]))
            rows, card = measured(job)
            of = teacher_of(self.store, card, stage or charts.stages(rows)[-1])
        except (BadInput, KeyError, TypeError, IndexError):
            return [gr.Accordion(visible=False), gr.skip(), gr.HTML(spec=None), ""]
        names = charts.stages(rows)
        chosen = stage if stage in names else names[-1]
        dropdown = gr.Dropdown(choices=names, value=chosen, visible=len(names) > 1)
        if of is None:
            return [
                gr.Accordion(visible=True),
                dropdown,
                gr.HTML(spec=None),
                notice("This student's teacher is not in the workspace."),
            ]
        found = charts.recovery_rows(rows, of, drops(self.store, of), stage=chosen)
        chart = charts.recovery_chart(found).to_dict(validate=False) if found["spans"] else None
        return [gr.Accordion(visible=chart is not None), dropdown, gr.HTML(spec=chart), told(found)]


def measured(job: Job) -> tuple[list[dict[str, Any]], Card]:
    """What a finished distillation measured, and its student's card. Raises BadInput where there is
    none.
    """
    result = job.result if job.kind == "distill" and job.state == "done" else None
    if not isinstance(result, dict) or not charts.stages(result.get("recoverability") or []):
        raise BadInput(
            f"job {job.id} measured no span", "a finished distillation", "choose another job"
        )
    return result["recoverability"], Card.load(Path(str(result["student"])) / "card.json")


def teacher_of(store: Store, card: Card, stage: str) -> Teacher | None:
    """The teacher whose blocks the stage's spans count: the first of the chain, or the parent."""
    how = {str(s.get("name")): s for s in (card.spec or {}).get("stages", [])}
    name = card.teacher if how.get(stage, {}).get("teacher") == "parent" else card.original
    keys = {name} & set(catalogue.BUNDLED) or {
        row["path"] for row in store.teachers() if row["teacher"] == name
    }
    return catalogue.teacher(store, keys.pop()) if keys else None


def drops(store: Store, of: Teacher) -> SensitivityMap | None:
    """The newest map of this teacher with scores of dropped blocks."""
    found = (catalogue.sensitivity(store, of, path) for _, path in catalogue.maps(store, of))
    return next(
        (m for m in found if m is not None and m.metric == "prediction" and "drop" in m.edits), None
    )


def told(rows: dict[str, charts.Rows]) -> str:
    """What is drawn, in words."""
    below = (
        "; below, how much the prediction changes when a block is dropped (mean over timesteps, "
        "log scale)"
        if rows["blocks"]
        else ""
    )
    return (
        "<div class='wb-about'>Each span's distance from the teacher on the teacher's own "
        "states, before and after training "
        f"(normalised feature loss, log scale){below}.</div>"
    )
