"""The forms under the map: what they submit, what they refuse, and their command lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
import typer

from workbench import plans
from workbench.cli.main import build_app
from workbench.plans.editing import marks
from workbench.plugins import register, registry, unregister
from workbench.records import BadInput, Plan
from workbench.specs import (
    BuildSpec,
    CompareSpec,
    DistillVerbSpec,
    PlanSpec,
    ProfileSpec,
    VerbSpec,
    facts,
)
from workbench.ui import catalogue, draft
from workbench.ui.compare_form import CompareForm
from workbench.ui.inputs import safe_name, whole
from workbench.ui.launch_panel import LaunchPanel, NameForm, SourceForm, edits_of
from workbench.ui.plan_state import PlanState, PlanView
from workbench.ui.spec_form import SpecForm, names_but
from workbench.workspace.jobs import list_jobs
from workbench.workspace.store import Store

from . import synthetic
from .conftest import built_page

TEACHER = synthetic.teacher(24)


@pytest.fixture
def panel(store: Store, monkeypatch: pytest.MonkeyPatch) -> LaunchPanel:
    """A panel that keeps the specs it would submit."""
    panel = LaunchPanel(PlanState(store))
    panel.submitted = []  # type: ignore[attr-defined]

    def start(spec: Any, title: str) -> dict[str, str]:
        panel.submitted.append(spec)  # type: ignore[attr-defined]
        return {"message": title}

    monkeypatch.setattr(panel, "start", start)
    return panel


@pytest.fixture
def window(store: Store) -> PlanView:
    key = next(value for label, value in catalogue.teachers(store) if label == "synthetic")
    return PlanView(teacher=key)


def test_names_are_checked(store: Store, panel: LaunchPanel, window: PlanView):
    with pytest.raises(BadInput) as refused:
        panel.on_save(window, NameForm("../../evil"))
    assert "../../evil" in refused.value.found
    assert "Saved" in panel.on_save(window, NameForm("mine"))["message"]
    assert (store.workspace / "plans" / "mine.yaml").exists()
    for bad in ("", "a/b", "..", "x" * 99):
        with pytest.raises(BadInput):
            safe_name(bad, "plan")
    for bad_number in (None, "5", 1.5, 0, True, float("nan")):
        with pytest.raises(BadInput):
            whole(bad_number, 1, 10, "steps")
    assert list_jobs(store) == []


def test_build_saves_the_plan_and_submits_a_typed_spec(panel: LaunchPanel, window: PlanView):
    panel.on_build(window, NameForm("mine"), panel.build_form.filled(fat=True))
    spec = panel.submitted[0]  # type: ignore[attr-defined]
    assert isinstance(spec, BuildSpec) and spec.fat and spec.plan.endswith("plans/mine.yaml")


def test_a_plan_is_saved_over_another_one_only_when_that_is_confirmed(
    panel: LaunchPanel, store: Store, window: PlanView
):
    def save(plan: Plan) -> dict[str, Any]:
        draft.change(store.workspace, TEACHER, None, lambda current: current.to(plan))
        return panel.on_save(window, NameForm("mine"))

    path = store.workspace / "plans" / "mine.yaml"
    first = plans.identity(TEACHER)
    other = marks.edit(first, TEACHER, {"transformer_blocks": [4]}, "drop")
    assert "Saved" in save(first)["message"] and "Saved" in save(first)["message"]
    question = save(other)
    assert "mine-2" in question["message"] and question["replace"].visible
    assert Plan.load(path) == first
    panel.on_build(window, NameForm("mine"), panel.build_form.filled())
    assert Plan.load(path) == first and Plan.load(path.with_stem("mine-2")) == other
    done = panel.on_replace(window, NameForm("mine"))
    assert Plan.load(path) == other and done["replace"].visible is False


def test_distill_takes_students_of_the_list(
    panel: LaunchPanel, store: Store, monkeypatch: pytest.MonkeyPatch
):
    form = panel.distill_form
    with pytest.raises(BadInput) as refused:
        panel.on_distill(form.filled(student="/etc"))
    assert refused.value.found == "no student is chosen"
    students = [("student", "/models/student")]
    monkeypatch.setattr(catalogue, "students", lambda store: students)
    panel.on_distill(
        form.filled(student="/models/student", steps="20", minutes="1.5", trackers="trackio, wandb")
    )
    spec = panel.submitted[0]  # type: ignore[attr-defined]
    assert isinstance(spec, DistillVerbSpec)
    assert (spec.steps, spec.minutes, spec.recipe) == (20, 1.5, "workbench")
    assert spec.trackers == ["trackio", "wandb"]
    for field, value in (("steps", "many"), ("minutes", "0"), ("recipe", "none")):
        with pytest.raises(BadInput) as refused:
            panel.on_distill(form.filled(student="/models/student", **{field: value}))
        assert field in refused.value.found


def test_profiling_offers_every_edit_that_applies(panel: LaunchPanel, window: PlanView):
    offered = [value for _, value in panel.on_teacher(window)["edits"].choices]
    assert {"drop", "merge", "single", "int4", "drop:attn", "drop:text.mlp"} <= set(offered)
    form = panel.profile_form
    panel.on_profile(window, form.filled(edits=["drop:mlp", "single"], until_stable=True))
    panel.on_profile(window, form.filled(metric="cka"))
    first, second = panel.submitted  # type: ignore[attr-defined]
    assert isinstance(first, ProfileSpec)
    assert first.edits == ["drop:mlp", "single"] and first.until_stable
    assert second.metric == "cka" and second.edits is None
    for wrong in ({"edits": []}, {"edits": ["paint"]}, {"metric": "taste"}, {"timesteps": 0}):
        with pytest.raises(BadInput):
            panel.on_profile(window, form.filled(**wrong))


def test_a_teacher_needs_a_name(panel: LaunchPanel):
    for source in ("", " ", "x" * 501):
        with pytest.raises(BadInput):
            panel.on_add(SourceForm(source))
    panel.on_add(SourceForm(" Qwen/Qwen-Image "))
    assert panel.submitted[0].teacher == "Qwen/Qwen-Image"  # type: ignore[attr-defined]


def test_the_command_lines_say_what_the_forms_say(
    store: Store, panel: LaunchPanel, window: PlanView
):
    lines = panel.commands(
        window,
        NameForm("my plan"),
        panel.build_form.filled(fat=True),
        panel.distill_form.filled(minutes="5", trackers="trackio"),
        panel.profile_form.filled(metric="image", edits=["drop", "merge"], until_stable=True),
    )
    build = shlex.split(lines["build"])
    assert build[:3] == ["workbench", "build", str(store.workspace / "plans" / "my plan.yaml")]
    assert "--fat" in build and build[-3:] == ["--workspace", str(store.workspace), "--background"]
    distill = shlex.split(lines["distill"])
    assert distill[:3] == ["workbench", "distill", "STUDENT"]
    assert distill[distill.index("--minutes") + 1] == "5"
    assert distill[distill.index("--tracker") + 1] == "trackio"
    profile = shlex.split(lines["profile"])
    assert profile[profile.index("--edits") + 1] == "drop,merge" and "--until-stable" in profile
    assert "--timesteps" not in profile, "the default needs no flag"


def test_rows_from_outside_appear_in_the_forms(store: Store, registered: None):
    with gr.Blocks():
        panel, compare = LaunchPanel(PlanState(store)), CompareForm(store)
        panel.build()
        compare.build()
    profile, distill = panel.profile_form.widgets, panel.distill_form.widgets
    offered = {
        "metric": profile["metric"],
        "scorer": profile["scorer"],
        "recipe": distill["recipe"],
        "scorers": compare.spec_form.widgets["scorers"],
    }
    for name, widget in offered.items():
        assert "mine" in [value for _, value in widget.choices], name  # type: ignore[attr-defined]
    assert "mine" in edits_of(TEACHER)
    panel.profile_form.filled(metric="mine", edits=["mine"]).parse(panel.access, teacher="demo")


@pytest.fixture
def registered() -> Iterator[None]:
    """A row called `mine` in each table that a form offers, of the type of a row that is there."""
    kinds = ("metric", "edit", "scorer", "recipe", "rule")
    for kind in kinds:
        table = registry(kind)
        register(kind, "mine", table[table.names()[0]])
    yield
    for kind in kinds:
        unregister(kind, "mine")


def test_a_rule_from_outside_can_be_proposed_with(store: Store, registered: None):
    with built_page(store) as page:
        assert "mine" in [value for _, value in page.rules.rule.choices]


@pytest.mark.parametrize("spec", [BuildSpec, DistillVerbSpec, ProfileSpec, CompareSpec, PlanSpec])
def test_every_field_has_a_widget_that_reads_back_as_unset(spec: type[VerbSpec]):
    """A form that nobody touched gives the spec's defaults, whatever the fields' types."""
    names = names_but(spec, [fact.name for fact in facts(spec) if fact.positional])
    form = SpecForm(spec, names, "test")
    with gr.Blocks():
        form.build()
    values = [widget.value for widget in form.inputs]
    assert form.read(values).data() == {}
    assert list(form.widgets) == names


def test_the_commands_are_understood_by_the_command_line(panel: LaunchPanel, window: PlanView):
    """What the app prints, the command line reads as the spec that the app submits."""
    form = panel.profile_form.filled(edits=["drop", "single"], seeds=3, dtype="bf16", guidance="2")
    line = shlex.split(form.command(panel.store.workspace, teacher="demo"))
    command = typer.main.get_command(build_app())
    parsed = command.commands["profile"].make_context("profile", line[2:])  # type: ignore[attr-defined]
    options = parsed.params
    spec = form.parse(panel.access, teacher="demo")
    assert options["teacher"] == "demo" and options["background"] is True
    assert options["edits"] == "drop,single" and spec.edits == ["drop", "single"]
    assert (options["seeds"], options["guidance"], options["dtype"]) == ("3", "2", "bf16")
    assert (spec.seeds, spec.guidance) == (3, 2.0)
