"""The forms under the map: build, distill, profile, add a teacher.

Each form comes from a verb's spec. A button submits a job; under each form stands the command line
that does the same. Nothing long runs here: a job is a row, a folder and a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from .. import plans
from ..plugins import registry
from ..records import BadInput, Plan, Teacher
from ..specs import BuildSpec, DistillVerbSpec, InfoSpec, ProfileSpec, VerbSpec
from ..workspace import jobs
from . import catalogue, draft
from .address import FORMS
from .components import LAST, QUIET
from .forms import Changes, Fields, Readable, connect
from .inputs import file_name, safe_name
from .plan_state import PlanState, PlanView
from .pulse import Pulse
from .spec_form import Choice, SpecForm, SpecInput, command_field, main_button, names_but
from .text import notice

# Fields of the specs that the forms leave out: the page knows them, or they make no sense there.
NOT_IN_BUILD = ("plan", "out", "teacher", "plugins")
NOT_IN_DISTILL = ("out", "spec_file", "resume", "estimate", "devices", "plugins")
NOT_IN_PROFILE = ("teacher", "out", "inputs", "resume", "plugins")
EDITS_INFO = "What is done to one block at a time; the effect is its score."
RECIPE = "workbench"  # what the form opens with
DISTILL_STEPS = 200  # what the form opens with; empty: the recipe's, which may take days


@dataclass(frozen=True)
class NameForm:
    """The name under which the plan is saved and the student built."""

    name: str = "plan"


@dataclass(frozen=True)
class SourceForm:
    """A teacher to add: a folder or a Hub id."""

    source: str = ""


@dataclass(frozen=True)
class StudentsForm:
    """The students that the list held, and the one that is chosen."""

    listed: str = ""
    student: str | None = None


class LaunchPanel:
    def __init__(self, state: PlanState):
        self.state = state
        self.store = state.store
        self.access = state.access
        self.build_form = SpecForm(BuildSpec, names_but(BuildSpec, NOT_IN_BUILD), "build")
        self.distill_form = SpecForm(
            DistillVerbSpec,
            names_but(DistillVerbSpec, NOT_IN_DISTILL),
            "distill",
            custom={
                "student": Choice(info="A student of this workspace."),
                "recipe": Choice(catalogue.recipes, default=RECIPE),
            },
            defaults={"steps": DISTILL_STEPS},
        )
        self.profile_form = SpecForm(
            ProfileSpec,
            names_but(ProfileSpec, NOT_IN_PROFILE),
            "profile",
            custom={
                "edits": Choice(
                    lambda: ["drop", "merge"], ["drop", "merge"], many=True, info=EDITS_INFO
                ),
            },
        )

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        self.message = gr.HTML(elem_id="launch-message")
        with gr.Tabs(elem_id="launch"):
            with gr.Tab(FORMS["build"], id="build"):
                with gr.Row(elem_classes="wb-bar", equal_height=False):
                    self.name = gr.Textbox(
                        "plan", label="Name", elem_id="plan-name", scale=2, min_width=140
                    )
                    self.save = gr.Button("Save plan", elem_id="save-plan", min_width=100)
                    self.replace = gr.Button(
                        "Replace", elem_id="replace-plan", min_width=100, visible=False
                    )
                    self.run_build = main_button("Build student", "build")
                self.build_form.build()
                self.build_command = command_field("build-command")
            with gr.Tab(FORMS["distill"], id="distill"):
                self.distill_form.build()
                self.run_distill = main_button("Distill", "distill")
                self.distill_command = command_field("distill-command")
            with gr.Tab(FORMS["profile"], id="profile"):
                self.profile_form.build()
                self.run_profile = main_button("Profile", "profile")
                self.profile_command = command_field("profile-command")
            with gr.Tab(FORMS["add"], id="add"), gr.Row(elem_classes="wb-bar", equal_height=False):
                self.source = gr.Textbox(
                    label="Folder or Hub id",
                    info="Only its headers are read: no weights are downloaded.",
                    placeholder="Qwen/Qwen-Image, or a diffusers folder",
                    elem_id="source",
                    scale=4,
                    min_width=180,
                )
                self.add = main_button("Add", "add")

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks, pulse: Pulse) -> None:
        state = self.state
        view = state.fields
        name = Fields(NameForm, name=self.name)
        message = {"message": self.message}
        saving = {"message": self.message, "replace": self.replace}
        connect([self.save.click], self.on_save, [view, name], saving, settled=True, **QUIET)
        connect([self.replace.click], self.on_replace, [view, name], saving, settled=True, **QUIET)
        connect([self.name.input], self.on_name, [name], saving, **LAST)
        connect(
            [self.run_build.click],
            self.on_build,
            [view, name, self.build_form],
            saving,
            settled=True,
            **QUIET,
        )
        connect([self.run_distill.click], self.on_distill, [self.distill_form], message, **QUIET)
        connect(
            [self.run_profile.click], self.on_profile, [view, self.profile_form], message, **QUIET
        )
        connect([self.add.click], self.on_add, [Fields(SourceForm, source=self.source)], message)
        edits = {"edits": self.profile_form.widgets["edits"]}
        connect([state.teacher.change], self.on_teacher, [view], edits, **QUIET)
        self.wire_commands(demo)
        self.wire_students(pulse)

    def wire_commands(self, demo: gr.Blocks) -> None:
        """The command lines follow the forms."""
        name = Fields(NameForm, name=self.name)
        forms: list[Readable] = [
            self.state.fields,
            name,
            self.build_form,
            self.distill_form,
            self.profile_form,
        ]
        events: list[Any] = [demo.load, self.state.teacher.change, self.name.change]
        for form in (self.build_form, self.distill_form, self.profile_form):
            events += [widget.change for widget in form.inputs]
        outputs = {
            "build": self.build_command,
            "distill": self.distill_command,
            "profile": self.profile_command,
        }
        connect(events, self.commands, forms, outputs, **QUIET)

    def wire_students(self, pulse: Pulse) -> None:
        """New students enter the list."""
        listed = gr.State("")
        student = self.distill_form.widgets["student"]
        outputs = {"listed": listed, "student": student}
        connect(
            [pulse.event("students")],
            self.on_students,
            [Fields(StudentsForm, listed=listed, student=student)],
            outputs,
            **LAST,
        )

    # --- handlers ---------------------------------------------------------------------------------

    def on_students(self, form: StudentsForm) -> Changes:
        """The list of students, when it has changed."""
        choices = catalogue.students(self.store)
        listed = repr(choices)
        if listed == form.listed:
            return {}
        student = catalogue.current(choices, form.student)
        return {"listed": listed, "student": gr.Dropdown(choices=choices, value=student)}

    def save_plan(self, teacher: Teacher, path: Path) -> Path:
        """Write the plan; a file that is there is replaced, its comments stay."""
        self.access.check_change()
        draft.load(self.store.workspace, teacher).plan.save(path)
        self.store.add("plan", path)
        return path

    def is_another(self, teacher: Teacher, path: Path) -> bool:
        """Whether a file is there already that holds another plan than the present one."""
        if not path.exists():
            return False
        try:
            return Plan.load(path) != draft.load(self.store.workspace, teacher).plan
        except BadInput:  # not a plan at all
            return True

    def free_path(self, path: Path) -> Path:
        """NAME-2.yaml, NAME-3.yaml ..: the first that is not there."""
        number = 2
        while (free := path.with_stem(f"{path.stem}-{number}")).exists():
            number += 1
        return free

    def plan_path(self, name: str) -> Path:
        return self.store.workspace / "plans" / f"{name}.yaml"

    def on_save(self, shown: PlanView, form: NameForm) -> Changes:
        """Save the plan; over another one only once that is confirmed."""
        teacher = catalogue.teacher(self.store, shown.teacher)
        path = self.plan_path(safe_name(form.name, "plan"))
        if not self.is_another(teacher, path):
            return self.saved(self.save_plan(teacher, path))
        self.access.check_change()
        question = (
            f"Not saved: another plan has the name “{path.stem}”. Replace it, or save under another "
            f"name (“{self.free_path(path).stem}” is free)."
        )
        button = gr.Button(value=f"Replace “{path.stem}”", visible=True)
        return {"message": notice(question), "replace": button}

    def on_replace(self, shown: PlanView, form: NameForm) -> Changes:
        teacher = catalogue.teacher(self.store, shown.teacher)
        return self.saved(
            self.save_plan(teacher, self.plan_path(safe_name(form.name, "plan"))), "Replaced"
        )

    def saved(self, path: Path, done: str = "Saved") -> Changes:
        return {"message": notice(f"{done} {path}"), "replace": gr.Button(visible=False)}

    def on_name(self, form: NameForm) -> Changes:
        """Under another name there is nothing to replace yet."""
        return {"message": "", "replace": gr.Button(visible=False)}

    def start(self, spec: VerbSpec, title: str) -> Changes:
        """Submit a job. Raises BadInput where a file that the spec names is missing."""
        self.access.check_change()
        job = jobs.submit(self.store, spec.verb, spec, title=title)
        return {
            "message": notice(f"{job.title}: job {job.id} is {job.state}. See the page “Jobs”.")
        }

    def on_build(self, shown: PlanView, form: NameForm, build: SpecInput[BuildSpec]) -> Changes:
        """Save the plan, beside another one of its name, and queue the build."""
        teacher = catalogue.teacher(self.store, shown.teacher)
        path = self.plan_path(safe_name(form.name, "plan"))
        taken = self.is_another(teacher, path)
        if taken:
            path = self.free_path(path)
        self.save_plan(teacher, path)
        out = self.store.out("student", safe_name(form.name, "student"))
        changes = self.start(
            build.parse(self.access, plan=str(path), out=str(out)), f"build {out.name}"
        )
        if taken:
            changes["message"] += notice(f"Another plan has that name: saved as “{path.stem}”.")
        return changes

    def on_distill(self, distill: SpecInput[DistillVerbSpec]) -> Changes:
        student = distill["student"]
        if student not in {path for _, path in catalogue.students(self.store)}:
            raise BadInput("no student is chosen", "a built student", "build one first")
        recipe = distill["recipe"]
        if recipe not in catalogue.recipes():
            raise BadInput(
                f"recipe {recipe!r}", "one of " + ", ".join(catalogue.recipes()), "choose one"
            )
        out = self.store.out("student", f"{Path(student).name}-{recipe}")
        spec = distill.without("student").parse(self.access, student=student, out=str(out))
        return self.start(spec, f"distill {out.name}")

    def on_teacher(self, shown: PlanView) -> Changes:
        """The edits that apply to this teacher's blocks."""
        teacher = catalogue.teacher(self.store, shown.teacher)
        return {"edits": gr.CheckboxGroup(choices=edits_of(teacher))}

    def on_profile(self, shown: PlanView, profile: SpecInput[ProfileSpec]) -> Changes:
        teacher = catalogue.teacher(self.store, shown.teacher)
        profile = without_unused(profile)
        if "edits" in profile.values:
            check_edits(profile["edits"] or [], edits_of(teacher))
        name = file_name(Path(teacher.name).name) or "map"
        out = self.store.out("map", name, ".json")
        spec = profile.parse(self.access, teacher=teacher.name, out=str(out))
        title = f"profile {teacher.name}"
        if spec.metric != "prediction":
            title += f", {spec.metric}"
        return self.start(spec, title)

    def on_add(self, form: SourceForm) -> Changes:
        name = str(form.source or "").strip()
        if not name or len(name) > 500:
            raise BadInput("no teacher is given", "a diffusers folder or a Hub id", "enter one")
        spec = InfoSpec.parse(self.access.opened(InfoSpec, {"teacher": name}))
        return self.start(spec, f"read {name}")

    def commands(
        self,
        shown: PlanView,
        form: NameForm,
        build: SpecInput[BuildSpec],
        distill: SpecInput[DistillVerbSpec],
        profile: SpecInput[ProfileSpec],
    ) -> Changes:
        """The command lines of the three forms as they are filled in."""
        workspace = self.store.workspace
        name = form.name or "plan"
        student = distill["student"] or "STUDENT"
        return {
            "build": build.command(
                workspace,
                plan=str(self.plan_path(name)),
                out=str(workspace / "students" / name),
            ),
            "distill": distill.command(workspace, out=f"{student}-{distill['recipe']}"),
            "profile": without_unused(profile).command(
                workspace,
                teacher=self.name_of(shown.teacher),
                out=str(workspace / "sensitivity" / "map.json"),
            ),
        }

    def name_of(self, teacher: str | None) -> str | None:
        """The teacher's name, as the command line takes it."""
        try:
            return catalogue.teacher(self.store, teacher).name
        except BadInput:
            return None


def without_unused(profile: SpecInput[ProfileSpec]) -> SpecInput[ProfileSpec]:
    """Without the edits, where the metric chooses its own.

    Raises BadInput for an unknown metric.
    """
    metric = registry("metric")[profile["metric"]]
    if not metric.edits:
        return profile.without("edits")
    return profile


def check_edits(edits: list[str], offered: list[str]) -> None:
    """Raise BadInput where no edit is chosen, or one that does not apply to the teacher."""
    if not edits or not set(edits) <= set(offered):
        chosen = ", ".join(edits) or "none"
        raise BadInput(f"edits to score: {chosen}", "some of " + ", ".join(offered), "choose some")


def edits_of(teacher: Teacher) -> list[str]:
    """The edits that a map of this teacher can have, whole blocks first."""
    parts = droppable_parts(teacher)
    edits: list[str] = []
    for name in registry("edit"):
        kind, _, argument = name.partition(":")
        if argument == "PART":
            edits += [f"{kind}:{part}" for part in parts]
        elif name != "single" or can_be_single(teacher):
            edits.append(name)
    return sorted(edits, key=lambda edit: ":" in edit)


def droppable_parts(teacher: Teacher) -> list[str]:
    """The parts that any block of the teacher can do without."""
    family = plans.family_of(teacher)
    parts: dict[str, None] = {}
    for stack in teacher.stacks:
        for name, part in family.stack(stack.path).parts.items():
            if not part.last_only:
                parts[name] = None
    return list(parts)


def can_be_single(teacher: Teacher) -> bool:
    """Whether any block of the teacher can become single-stream."""
    return any(plans.can_single(teacher, stack.path) for stack in teacher.stacks)
