"""A new comparison: the form, and the job that it submits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..records import BadInput
from ..specs import CompareSpec
from ..workspace import jobs
from ..workspace.store import Store
from . import catalogue
from .access import Access
from .components import QUIET
from .forms import Changes, Fields, Readable, connect
from .inputs import safe_name
from .spec_form import SpecForm, SpecInput, command_field, main_button, names_but
from .text import notice

NOT_IN_FORM = ("models", "names", "out", "plugins", "scorer_files")  # the page knows them
SEEDS = 2  # what the form opens with


@dataclass(frozen=True)
class ModelsForm:
    """The models to compare, the teacher first, and the comparison's name."""

    models: list[str] | None = None
    name: str = "comparison"


class CompareForm:
    def __init__(self, store: Store, access: Access | None = None):
        self.store = store
        self.access = access or Access(store)
        names = names_but(CompareSpec, NOT_IN_FORM)
        self.spec_form = SpecForm(CompareSpec, names, "compare", defaults={"seeds": SEEDS})

    def build(self) -> None:
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.models = gr.Dropdown(
                [],
                label="Models, the teacher first",
                multiselect=True,
                elem_id="models",
                scale=4,
                min_width=200,
            )
            self.name = gr.Textbox(
                "comparison", label="Name", elem_id="compare-name", scale=2, min_width=120
            )
            self.run = main_button("Compare", "compare-run")
        self.spec_form.build()
        self.command = command_field("compare-command")
        self.message = gr.HTML(elem_id="compare-started")

    def wire(self, demo: gr.Blocks) -> None:
        form: list[Readable] = [
            Fields(ModelsForm, models=self.models, name=self.name),
            self.spec_form,
        ]
        connect([self.run.click], self.on_run, form, {"message": self.message}, **QUIET)
        events: list[Any] = [demo.load, self.models.change, self.name.change]
        events += [widget.change for widget in self.spec_form.inputs]
        connect(events, self.on_fields, form, {"command": self.command}, **QUIET)

    def on_fields(self, form: ModelsForm, compare: SpecInput[CompareSpec]) -> Changes:
        """The command line that does the same."""
        workspace = self.store.workspace
        out = workspace / "comparisons" / (form.name or "comparison")
        return {"command": compare.command(workspace, models=form.models or [], out=str(out))}

    def on_run(self, form: ModelsForm, compare: SpecInput[CompareSpec]) -> Changes:
        self.access.check_change()
        known = {value for _, value in catalogue.models(self.store)}
        models = form.models or []
        if len(models) < 2 or not set(models) <= known:
            raise BadInput(
                f"{len(models)} models",
                "a teacher and at least one student of the list",
                "choose them",
            )
        out = self.store.out("comparison", safe_name(form.name, "comparison"))
        spec = compare.parse(self.access, models=models, out=str(out))
        job = jobs.submit(self.store, spec.verb, spec, title=f"compare {out.name}")
        return {
            "message": notice(
                f"{job.title}: job {job.id} is {job.state}. It enters the list when it is done."
            )
        }
