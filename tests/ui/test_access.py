"""What a browser may open: names, and files inside the workspace. Nothing else, whatever it sends."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import refused
from workbench.records import BadInput
from workbench.specs import VERBS, CompareSpec, DistillVerbSpec, PlanSpec, ProfileSpec, facts
from workbench.ui import catalogue, launch_panel
from workbench.ui.access import CODE, Access
from workbench.ui.address import Place
from workbench.ui.compare_form import CompareForm, ModelsForm
from workbench.ui.jobs_page import JobsForm, JobsPage
from workbench.ui.launch_panel import LaunchPanel, NameForm, SourceForm
from workbench.ui.live import LiveForm, LivePanel
from workbench.ui.plan_page import PlanPage
from workbench.ui.plan_state import PlanState, PlanView
from workbench.ui.preview_panel import PreviewForm
from workbench.ui.rules_panel import RuleForm
from workbench.workspace import job_control, jobs
from workbench.workspace.store import Store

FIELDS = [
    (verb, fact.name)
    for verb, row in VERBS.items()
    for fact in facts(row.spec)
    if fact.place and fact.name not in CODE
]


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("outside") / "secret.jsonl"
    file.write_text('{"prompt": "the secret"}\n')
    return file


def test_every_field_that_names_a_file_opens_those_of_the_workspace_alone(
    store: Store, secret: Path
):
    """And the answer to any other is the same, whether a file is there or not."""
    access = Access(store)
    inside = store.workspace / "mine.jsonl"
    inside.write_text("a star\n")
    link = store.workspace / "link.jsonl"
    link.symlink_to(secret)
    up = os.path.relpath(secret, store.workspace)
    missing = secret.with_name("no.jsonl")
    shared = Access(store, folders=(secret.parent,))
    for verb, field in FIELDS:
        spec = VERBS[verb].spec
        for path in ("mine.jsonl", str(inside)):
            assert access.opened(spec, {field: path})[field] == str(inside)
        answers = set()
        for path in (str(secret), str(secret.parent), str(missing), up, str(link), "~", "/", "\0"):
            with pytest.raises(BadInput) as refusal:
                access.opened(spec, {field: path})
            answers.add(str(refusal.value).replace(repr(path), "PATH"))
        assert len(answers) == 1, answers
        with pytest.raises(BadInput):
            access.opened(spec, {field: ["mine.jsonl", str(secret)]})
        assert shared.opened(spec, {field: str(secret)})[field] == str(secret)


def test_names_are_names_also_where_a_file_of_that_name_lies_in_the_current_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
):
    access = Access(store)
    named: list[tuple[Any, str, str]] = [
        (CompareSpec, "suite", "scenes"),
        (DistillVerbSpec, "data", "hub:some/data"),
        (DistillVerbSpec, "recipe", "workbench"),
        (PlanSpec, "start", "uniform"),
        (ProfileSpec, "teacher", "Qwen/Qwen-Image@main"),
        (ProfileSpec, "teacher", "demo"),
    ]
    for spec, field, name in named:
        assert access.opened(spec, {field: name})[field] == name
    map_id = store.maps()[0]
    assert access.opened(PlanSpec, {"sensitivity": map_id.id})["sensitivity"] == map_id.path
    here = tmp_path_factory.mktemp("here")
    (here / "scenes").write_text("the secret\n")
    (here / "a").mkdir()
    (here / "a" / "model").mkdir()
    monkeypatch.chdir(here)
    for spec, field, name in [
        (CompareSpec, "suite", "scenes"),
        (ProfileSpec, "teacher", "a/model"),
    ]:
        assert access.opened(spec, {field: name})[field] == str(store.workspace / name)


def test_a_suite_of_the_host_is_not_read_by_a_comparison(store: Store, secret: Path):
    form = CompareForm(store)
    models = ModelsForm(["demo", "demo-12"])
    with refused(found="secret.jsonl", do="--folder"):
        form.on_run(models, form.spec_form.filled(suite=str(secret)))
    assert jobs.list_jobs(store) == []


def test_a_job_is_not_queued_again_with_files_or_code_of_the_host(store: Store, secret: Path):
    page = JobsPage(store)
    job = jobs.submit(store, "info", {"teacher": "demo"}, start=False)
    again = page.copier(job_control.duplicate)
    form = JobsForm(jobs={"jobs": [], "selected": job.id})
    for changes in (f"teacher={secret}", f'plugins=["{secret}"]'):
        assert "wb-problem" in again(replace(form, changes=changes))["message"]
    assert len(jobs.list_jobs(store)) == 1


def test_a_teacher_to_add_is_a_hub_id_or_lies_in_a_folder_of_the_app(store: Store, secret: Path):
    panel = LaunchPanel(PlanState(store))
    for source in (str(secret.parent), "../../etc", "~/models"):
        with refused(do="--folder"):
            panel.on_add(SourceForm(source))


def test_a_new_workspace_is_its_owners_alone(tmp_path: Path):
    Store(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


# --- an app that only shows -----------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the index, which is brought up to date by whoever looks."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if "workbench.db" not in path.name}


def test_an_app_that_only_shows_refuses_whatever_would_change_something(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    import gradio as gr

    job = jobs.submit(store, "info", {"teacher": "demo"}, start=False)
    access = Access(store, read_only=True)
    monkeypatch.setattr(jobs, "wake", lambda *_: pytest.fail("a worker was started"))
    with gr.Blocks():
        page = PlanPage(PlanState(store, access))
        page.build()
        page.build_yaml()
    launcher = LaunchPanel(page.state)
    key = next(value for label, value in catalogue.teachers(store) if label == "synthetic")
    window = PlanView(heat={"version": 0, "selected": [4]}, teacher=key)
    jobs_page, compare = JobsPage(store, access), CompareForm(store, access)
    form = JobsForm(jobs={"jobs": [], "selected": job.id}, changes="")
    before = tree(store.workspace)
    assert "synthetic" in page.on_teacher(window)["header"], "it shows everything"
    jobs_page.on_address(Place(), form)
    batch = {"teacher": key, "window": "w", "version": 0}
    batch["edits"] = [{"number": 1, "verb": "drop", "places": [4]}]
    assert "--read-only" in page.state.receive(batch)["refused"][0]["reason"]
    for changes in (
        page.rules.on_propose(window, RuleForm(), (12, 1), page.rules.options.filled()),
        jobs_page.handler(jobs.cancel)(form),
        jobs_page.copier(job_control.duplicate)(form),
    ):
        assert "--read-only" in changes["message"]
    calls = [
        lambda: launcher.on_save(window, NameForm("mine")),
        lambda: launcher.on_build(window, NameForm("mine"), launcher.build_form.filled()),
        lambda: launcher.on_profile(window, launcher.profile_form.filled()),
        lambda: launcher.on_add(launch_panel.SourceForm("some/teacher")),
        lambda: compare.on_run(ModelsForm(["demo", "demo-12"]), compare.spec_form.filled()),
        lambda: page.preview.on_run(window, PreviewForm(prompt="a star")),
        lambda: LivePanel(store, access).on_run(LiveForm(left="demo", right="demo", prompt="a")),
    ]
    for call in calls:
        with refused(found="--read-only"):
            call()
    assert tree(store.workspace) == before
