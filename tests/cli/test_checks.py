"""Input that a verb refuses leaves no job: the check comes first, in the foreground and queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import workbench
from workbench import tasks
from workbench.records import BadInput
from workbench.specs import VERBS
from workbench.workspace import jobs
from workbench.workspace.store import Store

PLAN = "teacher: demo\nfamily: qwenimage\nstacks: {transformer_blocks: [{blocks: [0, 23]}]}\n"
# name -> verb, what its spec says, what the error names; {folder} holds the files of `folder`
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a plan without a teacher": ("build", {"plan": "{folder}/bad.yaml"}, "{folder}/bad.yaml: plan"),
    "a plan with a hole": ("build", {"plan": "{folder}/hole.yaml"}, "blocks 1-23 in no span"),
    "an output that is something else": (
        "build",
        {"plan": "{folder}/plan.yaml", "out": "{folder}"},
        "not a student",
    ),
    "a metric": ("profile", {"teacher": "demo", "metric": "nope"}, "metric 'nope'"),
    "a race": ("profile", {"teacher": "demo", "race": 24}, "the 24 lowest of 24 blocks"),
    "an edit": ("profile", {"teacher": "demo", "edits": ["drop:nope"]}, "edit 'drop:nope'"),
    "a folder as a map": ("profile", {"teacher": "demo", "out": "{folder}"}, "is a folder"),
    "a folder as a plan": ("plan", {"teacher": "demo", "keep": 12, "out": "{folder}"}, "a folder"),
    "a block that is not there": (
        "plan",
        {"teacher": "demo", "keep": 12, "protect": [99], "rule": "greedy"},
        "block 99",
    ),
    "two sources of calls": (
        "plan",
        {"teacher": "demo", "keep": 12, "rule": "greedy", "inputs": "a", "prompts": "b"},
        "--inputs with --prompts",
    ),
    "an edit of a rule": (
        "plan",
        {"teacher": "demo", "keep": 12, "rule": "greedy", "edits": ["x"]},
        "'x'",
    ),
    "a plan to start from": (
        "plan",
        {"teacher": "demo", "keep": 12, "rule": "search", "start": "nope"},
        "plan nope",
    ),
    "an option of another rule": (
        "plan",
        {"teacher": "demo", "keep": 12, "rule": "greedy", "tries": 3},
        "option tries",
    ),
    "recorded inputs": ("profile", {"teacher": "demo", "inputs": "{folder}/bad.yaml"}, "bad.yaml"),
    "prompts": ("profile", {"teacher": "demo", "prompts": "{folder}"}, "{folder}"),
    "a teacher as a student": ("distill", {"student": "demo"}, "a teacher, not a student"),
    "a folder as a student": ("distill", {"student": "{folder}"}, "not a student"),
    "devices without an estimate": ("distill", {"student": "demo", "devices": "8x80GB"}, "--for"),
    "a tracker": ("distill", {"student": "demo", "trackers": ["nope"]}, "tracker 'nope'"),
    "a model": ("compare", {"models": ["demo", "{folder}"]}, "{folder} has no model_index.json"),
    "a suite": ("compare", {"models": ["demo", "demo-12"], "suite": "nope"}, "suite nope"),
    "a table": ("reproduce", {"table": "nope"}, "table 'nope'"),
    "a used output": ("demo", {"out": "{folder}"}, "something else"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "bad.yaml").write_text("hello: 1\n")
    (folder / "plan.yaml").write_text(PLAN)
    (folder / "hole.yaml").write_text(PLAN.replace("[0, 23]", "0") + "\n")
    return folder


def placed(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    if isinstance(value, list):
        return [placed(item, folder) for item in value]
    return value


@pytest.mark.parametrize("name", REFUSED)
def test_refused_input_leaves_no_job(name: str, tmp_path: Path, folder: Path) -> None:
    verb, fields, found = REFUSED[name]
    data = {key: placed(value, folder) for key, value in fields.items()}
    store = Store(tmp_path / "workspace")
    with pytest.raises(BadInput) as here:
        tasks.run(verb, data, store.workspace, device="cpu")
    assert placed(found, folder) in here.value.found
    with pytest.raises(BadInput) as queued:
        workbench.submit(verb, workspace=store.workspace, device="cpu", **data)
    assert queued.value.found == here.value.found
    assert jobs.list_jobs(store) == []


def test_every_verb_with_a_job_checks_first() -> None:
    for name, verb in VERBS.items():
        if verb.quick is not True and verb.run.startswith("workbench."):
            assert verb.check, f"{name} makes a job before it looks at its input"
