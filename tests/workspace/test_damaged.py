"""One damaged record is shown as damaged; all others stay."""

from __future__ import annotations

import json
import os

import pytest

from workbench.records import BadInput
from workbench.workspace import devices, jobs
from workbench.workspace.store import Store

from .test_store import a_map, a_plan, names

BRACKETS = "[" * 100_000


@pytest.fixture
def three(store: Store) -> list[jobs.Job]:
    """Three queued jobs, newest first."""
    made = [jobs.submit(store, "count", {"steps": 5}, start=False) for _ in range(3)]
    return made[::-1]


@pytest.mark.parametrize("text", ["[1]", '{"step": "x"}', "", "{", BRACKETS, "1" * 5000, "\0"])
def test_damaged_progress_is_no_progress(store: Store, three: list[jobs.Job], text: str):
    (three[1].folder / "progress.json").write_text(text)
    (three[1].folder / "result.json").write_text(text)
    (three[1].folder / "outcome.json").write_text(text)
    listed = jobs.list_jobs(store)
    assert [job.id for job in listed] == [job.id for job in three]
    assert listed[1].step == 0
    jobs.log_tail(store, three[1].id)
    assert jobs.metrics(store, three[1].id)[0] == []


@pytest.mark.parametrize(
    "columns", ["state = 'hibernating'", "spec = '[1]'", "spec = '{'", "attempt = 'x'"]
)
def test_a_damaged_row_is_listed_as_damaged(store: Store, three: list[jobs.Job], columns: str):
    with store.db() as db:
        db.execute(f"UPDATE job SET {columns} WHERE id = ?", (three[1].id,))
    listed = jobs.list_jobs(store)
    assert [job.id for job in listed] == [job.id for job in three]
    assert [job.state for job in listed] == ["queued", "damaged", "queued"]
    assert "damaged" in listed[1].error
    for action in (jobs.cancel, jobs.resume, jobs.mark_stopped):
        with pytest.raises(BadInput):
            action(store, three[1].id)


@pytest.mark.parametrize("text", ["[]", "{}", "", BRACKETS, '{"spec": {}, "state": "hibernating"}'])
def test_a_damaged_job_file_is_listed_after_the_database_is_gone(
    store: Store, three: list[jobs.Job], text: str
):
    (three[1].folder / "job.json").write_text(text)
    store.path.unlink()
    listed = jobs.list_jobs(store)
    assert [job.id for job in listed] == [job.id for job in three]
    assert [job.state for job in listed] == ["queued", "damaged", "queued"]


def test_a_spec_file_that_is_broken_changes_nothing(store: Store, three: list[jobs.Job]):
    (three[1].folder / "spec.yaml").write_text("{{")
    assert {job.state for job in jobs.list_jobs(store)} == {"queued"}


DAMAGED = {
    "teachers/t.json": "[]",
    "sensitivity/m.json": BRACKETS,
    "plans/p.yaml": "stacks: {a: [",
    "plans/q.yaml": "a: [" * 10_000,
    "students/s/card.json": "[1, 2]",
    "comparisons/c/comparison.json": json.dumps({"suite": "scenes", "prompts": [], "models": []}),
}


@pytest.mark.parametrize("file", DAMAGED)
def test_a_damaged_record_is_shown_as_damaged_and_the_others_stay(store: Store, file: str):
    a_plan().save(store.workspace / "plans" / "sound.yaml")
    a_map("f").save(store.workspace / "sensitivity" / "sound.json")
    path = store.workspace / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(DAMAGED[file])
    for _ in range(2):  # read, then from the index
        [entry] = store.damaged()
        assert entry.damaged
        assert (store.workspace / file).is_relative_to(entry.path)
        assert names(store.plans()) == {"sound"}
        assert names(store.maps()) == {"sound"}
        store = Store(store.workspace)
    a_plan().save(store.workspace / "plans" / "sound-2.yaml")
    path.write_text(a_plan().model_dump_json() if file.startswith("plans") else "{}")
    os.utime(path, (0, 0))
    assert [entry.kind for entry in store.damaged("plan")] == []


@pytest.mark.parametrize(
    ("name", "device"),
    [("CPU", "cpu"), ("cpu:0", "cpu"), ("cuda:0", "cuda"), ("CUDA", "cuda"), ("cuda:01", "cuda:1")],
)
def test_one_device_has_one_name(monkeypatch: pytest.MonkeyPatch, name: str, device: str):
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    assert devices.device_name(name) == device


@pytest.mark.parametrize("name", ["a/b", "cuda:99", "cpu:1", "gpu", "cuda:", "cuda:-1", "cuda:²"])
def test_a_device_that_is_not_there_is_refused_before_there_is_a_job(store: Store, name: str):
    with pytest.raises(BadInput) as error:
        jobs.submit(store, "count", {"steps": 1}, device=name, start=False)
    assert name.removesuffix(":") in error.value.found
    assert jobs.list_jobs(store) == []
    assert os.listdir(store.workspace / "jobs") == []
