"""Under the map: profile, save, build, distil. Each button submits a job; each shows the command
line that does the same.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr

from .. import plans
from ..records import BadInput, Plan, Teacher
from ..workspace import jobs
from ..workspace.store import Store
from . import catalogue, draft
from .components import QUIET
from .inputs import safe_name, whole
from .plan_page import PlanPage
from .text import command, notice, problem

METRICS = ["prediction", "influence", "cka", "recovery", "image"]


def edits_of(teacher: Teacher) -> list[str]:
    """The edits a map of this teacher can have, whole blocks first."""
    family = plans.family_of(teacher)
    parts = dict.fromkeys(
        name
        for stack in teacher.stacks
        for name, part in family.stack(stack.path).parts.items()
        if not part.last_only
    )
    single = (
        ["single"] if any(plans.can_single(teacher, stack.path) for stack in teacher.stacks) else []
    )
    return ["drop", "merge", *single, "int4", *(f"drop:{part}" for part in parts)]


class LaunchPanel:
    """The forms that start long work. Nothing long runs here: a job is a row, a folder and a
    process of its own.
    """

    def __init__(self, store: Store, page: PlanPage):
        self.store, self.page = store, page

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        self.said = gr.HTML(elem_id="launch-message")
        with gr.Tabs(elem_id="launch"):
            with gr.Tab("Build"):
                with gr.Row(elem_classes="wb-bar", equal_height=False):
                    self.plan_name = gr.Textbox(
                        "plan", label="Name", elem_id="plan-name", scale=2, min_width=140
                    )
                    self.save = gr.Button("Save plan", elem_id="save-plan", min_width=100)
                    self.make = gr.Button(
                        "Build student", variant="primary", elem_id="build", min_width=100
                    )
                self.build_line = self.line("build-command")
            with gr.Tab("Distil"):
                with gr.Row(elem_classes="wb-bar", equal_height=False):
                    self.student = gr.Dropdown(
                        [], label="Student", elem_id="student", scale=3, min_width=160
                    )
                    self.recipe = gr.Dropdown(
                        catalogue.recipes(),
                        value=catalogue.recipes()[0],
                        label="Recipe",
                        elem_id="recipe",
                        scale=2,
                        min_width=120,
                    )
                    self.steps = gr.Number(
                        200, label="Steps", precision=0, elem_id="steps", scale=1, min_width=90
                    )
                    self.minutes = gr.Number(
                        0,
                        label="At most minutes (0: no limit)",
                        elem_id="minutes",
                        scale=1,
                        min_width=110,
                    )
                    self.distil = gr.Button(
                        "Distil", variant="primary", elem_id="distil", min_width=100
                    )
                self.distil_line = self.line("distil-command")
            with gr.Tab("Profile"):
                with gr.Row(elem_classes="wb-bar", equal_height=False):
                    self.metric = gr.Dropdown(
                        METRICS,
                        value="prediction",
                        label="Metric",
                        elem_id="profile-metric",
                        scale=1,
                        min_width=150,
                    )
                    self.edits = gr.CheckboxGroup(
                        ["drop", "merge"],
                        value=["drop", "merge"],
                        label="Edits to measure",
                        elem_id="edits",
                        scale=5,
                        min_width=240,
                    )
                with gr.Row(elem_classes="wb-bar", equal_height=False):
                    self.timesteps = gr.Number(
                        8,
                        label="Timesteps",
                        precision=0,
                        elem_id="timesteps",
                        scale=1,
                        min_width=90,
                    )
                    self.seeds = gr.Number(
                        1,
                        label="Seeds",
                        precision=0,
                        elem_id="profile-seeds",
                        scale=1,
                        min_width=90,
                    )
                    self.sampling = gr.Number(
                        0,
                        label="Steps (0: usual)",
                        precision=0,
                        elem_id="profile-steps",
                        min_width=110,
                    )
                    self.side = gr.Number(
                        0,
                        label="Pixels (0: usual)",
                        precision=0,
                        elem_id="profile-size",
                        min_width=110,
                    )
                    self.stable = gr.Checkbox(
                        False,
                        label="Until the order of blocks is stable",
                        elem_id="until-stable",
                        min_width=160,
                    )
                    self.profile = gr.Button(
                        "Profile", variant="primary", elem_id="profile", min_width=100
                    )
                self.profile_line = self.line("profile-command")
            with gr.Tab("Add a teacher"), gr.Row(elem_classes="wb-bar", equal_height=False):
                self.source = gr.Textbox(
                    label="Folder or Hub id",
                    placeholder="Qwen/Qwen-Image, or a diffusers folder",
                    elem_id="source",
                    scale=4,
                    min_width=180,
                )
                self.add = gr.Button("Add", variant="primary", elem_id="add", min_width=100)

    def line(self, name: str) -> gr.Code:
        return gr.Code(
            "",
            language="shell",
            label="The same on the command line",
            elem_id=name,
            lines=1,
            wrap_lines=True,
            elem_classes="wb-line",
            interactive=False,
        )

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks, tick: gr.Timer) -> None:
        """Connect events; `tick` looks for new students."""
        page = self.page
        self.save.click(self.on_save, [page.teacher, self.plan_name], self.said, **QUIET)
        self.make.click(self.on_build, [page.teacher, self.plan_name], self.said, **QUIET)
        self.distil.click(
            self.on_distil,
            [self.student, self.recipe, self.steps, self.minutes, page.map],
            self.said,
            **QUIET,
        )
        measured = [
            self.edits,
            self.timesteps,
            self.seeds,
            self.sampling,
            self.side,
            self.metric,
            self.stable,
        ]
        page.teacher.change(self.on_teacher, page.teacher, self.edits, **QUIET)
        self.profile.click(self.on_profile, [page.teacher, *measured], self.said, **QUIET)
        self.add.click(self.on_add, self.source, self.said, **QUIET)
        fields: list[Any] = [
            page.teacher,
            self.plan_name,
            self.student,
            self.recipe,
            self.steps,
            self.minutes,
            *measured,
        ]
        lines = [self.build_line, self.distil_line, self.profile_line]
        for field in fields:
            field.change(self.commands, fields, lines, **QUIET)
        known = gr.State("")
        demo.load(self.commands, fields, lines, **QUIET)
        for event in (demo.load, tick.tick):
            event(self.students, [known, self.student], [known, self.student], **QUIET)

    # --- handlers ---------------------------------------------------------------------------------

    def students(self, known: str, chosen: str | None) -> list[Any]:
        """The list of students, when one came."""
        choices = [(row["name"], row["path"]) for row in self.store.students()]
        if repr(choices) == known:
            return [gr.skip(), gr.skip()]
        values = [path for _, path in choices]
        return [
            repr(choices),
            gr.Dropdown(
                choices=choices,
                value=chosen if chosen in values else (values[0] if values else None),
            ),
        ]

    def current(self, key: str | None) -> Plan:
        return draft.load(self.store.workspace, catalogue.teacher(self.store, key)).plan

    def place(self, kind: str, name: str) -> Path:
        folder, suffix = {
            "plan": ("plans", ".yaml"),
            "student": ("students", ""),
            "map": ("sensitivity", ".json"),
        }[kind]
        return self.store.workspace / folder / (name + suffix)

    def save_plan(self, key: str | None, name: Any) -> Path:
        """Write the plan under a name; one that is there already is replaced, its comments stay."""
        path = self.current(key).save(self.place("plan", safe_name(name, "plan")))
        self.store.add("plan", path)
        return path

    def on_save(self, key: str | None, name: Any) -> str:
        try:
            return notice(f"Saved {self.save_plan(key, name)}")
        except BadInput as error:
            return problem(str(error))

    def start(self, kind: str, spec: dict[str, Any], title: str) -> str:
        job = jobs.submit(self.store, kind, spec, title=title)
        return notice(f"{job.title}: job {job.id} is {job.state}. Watch it on the page “Jobs”.")

    def on_build(self, key: str | None, name: Any) -> str:
        try:
            path = self.save_plan(key, name)
            out = self.store.out("student", safe_name(name, "student"))
            return self.start("build", {"plan": str(path), "out": str(out)}, f"build {out.name}")
        except BadInput as error:
            return problem(str(error))

    def on_distil(
        self, student: str | None, recipe: str, steps: Any, minutes: Any, chosen_map: str | None
    ) -> str:
        try:
            if student not in {row["path"] for row in self.store.students()}:
                raise BadInput("no student is chosen", "a built student", "build one first")
            if recipe not in catalogue.recipes():
                raise BadInput(
                    f"recipe {recipe!r}", "one of " + ", ".join(catalogue.recipes()), "choose one"
                )
            spec: dict[str, Any] = {
                "student": student,
                "recipe": recipe,
                "steps": whole(steps, 1, 10_000_000, "steps"),
            }
            if limit := whole(minutes, 0, 100_000, "minutes"):
                spec["minutes"] = limit
            name = f"{Path(str(student)).name}-{recipe}"
            return self.start(
                "distill", {**spec, "out": str(self.store.out("student", name))}, f"distil {name}"
            )
        except BadInput as error:
            return problem(str(error))

    def on_teacher(self, key: str | None) -> Any:
        """The edits that this teacher's blocks can undergo."""
        try:
            return gr.CheckboxGroup(choices=edits_of(catalogue.teacher(self.store, key)))
        except BadInput:
            return gr.skip()

    def on_profile(
        self,
        key: str | None,
        edits: list[str],
        timesteps: Any,
        seeds: Any,
        steps: Any,
        side: Any,
        metric: str = "prediction",
        stable: bool = False,
    ) -> str:
        try:
            teacher = catalogue.teacher(self.store, key)
            if metric not in METRICS:
                raise BadInput(f"metric {metric!r}", "one of " + ", ".join(METRICS), "choose one")
            chooses = metric in ("prediction", "image")
            if chooses and (not edits or not set(edits) <= set(edits_of(teacher))):
                raise BadInput(
                    "no edit to measure", "some of " + ", ".join(edits_of(teacher)), "choose one"
                )
            out = self.store.out(
                "map", re.sub(r"[^\w.\-]", "-", Path(teacher.name).name) or "map", ".json"
            )
            spec: dict[str, Any] = {
                "teacher": teacher.name,
                "timesteps": whole(timesteps, 1, 1000, "timesteps"),
                "seeds": whole(seeds, 1, 1000, "seeds"),
                "out": str(out),
            }
            spec |= {"edits": list(edits)} if chooses else {}
            spec |= {"metric": metric} if metric != "prediction" else {}
            spec |= {"until_stable": True} if stable is True else {}
            spec |= {"steps": whole(steps, 1, 1000, "steps")} if steps else {}
            spec |= {"size": whole(side, 8, 8192, "pixels")} if side else {}
            return self.start(
                "profile",
                spec,
                f"profile {teacher.name}" + (f", {metric}" if metric != "prediction" else ""),
            )
        except BadInput as error:
            return problem(str(error))

    def on_add(self, source: Any) -> str:
        name = str(source or "").strip()
        if not name or len(name) > 500:
            return problem("no teacher is named; expected a diffusers folder or a Hub id; type one")
        try:
            return self.start("info", {"teacher": name}, f"read {name}")
        except BadInput as error:
            return problem(str(error))

    def commands(
        self,
        key: str | None,
        name: Any,
        student: str | None,
        recipe: str,
        steps: Any,
        minutes: Any,
        edits: list[str],
        timesteps: Any,
        seeds: Any,
        sampling: Any,
        side: Any,
        metric: str = "prediction",
        stable: bool = False,
    ) -> list[str]:
        """The command lines of the three forms as they are filled in."""
        where = ("--workspace", self.store.workspace, "--background")
        try:
            teacher = catalogue.teacher(self.store, key).name
        except BadInput:
            teacher = "TEACHER"
        name = str(name or "plan")
        limit = ("--minutes", minutes) if minutes else ()
        target = Path(student or "STUDENT")
        return [
            command("build", self.place("plan", name), "-o", self.place("student", name), *where),
            command(
                "distill",
                target,
                "-o",
                f"{target}-{recipe}",
                "--recipe",
                recipe,
                "--steps",
                steps,
                *limit,
                *where,
            ),
            command(
                "profile",
                teacher,
                "-o",
                self.place("map", "map"),
                *(("--edits", ",".join(edits or [])) if metric in ("prediction", "image") else ()),
                *(("--metric", metric) if metric != "prediction" else ()),
                "--timesteps",
                timesteps,
                "--seeds",
                seeds,
                *(("--until-stable",) if stable else ()),
                *(("--steps", sampling) if sampling else ()),
                *(("--size", side) if side else ()),
                *where,
            ),
        ]
