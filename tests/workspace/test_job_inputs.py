"""What a job is given when it is queued: a checked spec, its files as they were, its outputs."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from workbench.plugins import loaded_plugins
from workbench.records import BadInput
from workbench.specs import CompareSpec, DistillVerbSpec, ProfileSpec
from workbench.workspace import devices, job_inputs, jobs
from workbench.workspace.job_inputs import typed_spec
from workbench.workspace.store import Store

from .conftest import KINDS, until, wait_for

# --- the spec -------------------------------------------------------------------------------------


def test_a_wrong_spec_makes_no_job(store: Store):
    for verb, spec in (
        ("unknown", {}),
        ("count", {"stepz": 3}),
        ("count", {"steps": "many"}),
    ):
        with pytest.raises(BadInput):
            jobs.submit(store, verb, spec, start=False)
    assert jobs.list_jobs(store) == []
    with pytest.raises(BadInput) as error:
        jobs.submit(store, "count", {"stepz": 3}, start=False)
    assert error.value.do == "did you mean steps?"


def test_a_typed_spec_and_a_mapping_make_the_same_job(store: Store):
    typed = jobs.submit(store, "profile", ProfileSpec(teacher="demo", seeds=2), start=False)
    plain = jobs.submit(store, "profile", {"teacher": "demo", "seeds": 2}, start=False)
    assert typed.spec == plain.spec
    with pytest.raises(BadInput) as error:
        jobs.submit(store, "count", ProfileSpec(teacher="demo"), start=False)
    assert "profile" in error.value.found


def test_the_job_loads_the_plugins_of_the_process_that_queued_it(store: Store):
    job = jobs.submit(store, "count", {"steps": 1})
    assert str(KINDS) in loaded_plugins()
    assert str(KINDS) in job.spec["plugins"]
    assert wait_for(store, job.id, "done", "failed").state == "done"


OLD_DISTILL = {
    "student": "/models/student",
    "spec": "/models/distill.yaml",
    "keep": 3,
    "for": "8x80GB",
    "shard": False,
    "reference": "/models/reference.safetensors",
}


def test_a_spec_of_an_earlier_version_still_loads():
    spec = typed_spec("distill", OLD_DISTILL)
    assert isinstance(spec, DistillVerbSpec)
    assert (spec.keep_checkpoints, spec.devices) == (3, "8x80GB")
    assert spec.spec_file == "/models/distill.yaml"
    old_profile = {"teacher": "demo", "steps": 4, "shard": "0/2"}
    assert typed_spec("profile", old_profile) == ProfileSpec(teacher="demo", sampling_steps=4)


def test_a_row_of_an_earlier_version_still_runs_and_lists(store: Store):
    job = jobs.submit(store, "compare", {"models": ["demo", "demo-12"]}, start=False)
    old = '{"models": ["demo", "demo-12"], "steps": 2}'
    with store.db() as db:
        db.execute(
            "UPDATE job SET spec = ?, state = 'running', pid = 1, start = 9300, boot = ?, "
            "outputs = NULL WHERE id = ?",
            (old, "6f4d8a3e-1df6-4a5c-8a55-3b0e6d3d2f11", job.id),
        )
    [listed] = jobs.list_jobs(store)
    assert listed.state == "lost", "the process of another version is not known"
    expected = CompareSpec(models=["demo", "demo-12"], sampling_steps=2)
    assert typed_spec("compare", listed.spec) == expected


def test_a_database_of_an_earlier_version_is_migrated(tmp_path: Path):
    from workbench.workspace import schema

    folder = tmp_path / "old"
    folder.mkdir()
    db = sqlite3.connect(folder / "workbench.db")
    db.execute("CREATE TABLE migration (name TEXT PRIMARY KEY, applied REAL)")
    for step in schema.MIGRATIONS[:3]:
        step(db)
        db.execute("INSERT INTO migration VALUES (?, 0)", (step.__name__,))
    db.execute(
        "INSERT INTO job (id, number, kind, spec, state) VALUES ('0001-x', 1, 'x', '{}', 'done')"
    )
    db.commit()
    db.close()
    with Store(folder).db() as migrated:
        names = {row["name"] for row in migrated.execute("SELECT name FROM sqlite_master")}
        assert "metric" not in names
        assert migrated.execute("SELECT outputs FROM job").fetchone()["outputs"] is None


# --- input files ----------------------------------------------------------------------------------


def test_an_input_file_is_a_snapshot(store: Store, tmp_path: Path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("before")
    job = jobs.submit(store, "count", {"steps": 1, "prompts": str(prompts)}, start=False)
    prompts.write_text("after")
    assert Path(job.spec["prompts"]).read_text() == "before"
    assert f"prompts: {job.spec['prompts']}" in (job.folder / "spec.yaml").read_text()
    with pytest.raises(BadInput) as error:
        jobs.submit(store, "count", {"prompts": str(tmp_path / "none.txt")}, start=False)
    assert error.value.found == f"prompts {tmp_path / 'none.txt'} does not exist"


def test_two_inputs_of_one_name_stay_two(store: Store, tmp_path: Path):
    paths = {}
    for field in ("prompts", "data"):
        path = tmp_path / field / "captions.txt"
        path.parent.mkdir()
        path.write_text(field)
        paths[field] = str(path)
    job = jobs.submit(store, "count", paths, start=False)
    assert Path(job.spec["prompts"]).read_text() == "prompts"
    assert Path(job.spec["data"]).read_text() == "data"


def test_a_relative_path_means_the_same_in_the_job(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("here")
    Path("demo").mkdir()
    job = jobs.submit(store, "count", {"prompts": "prompts.txt", "out": "made"}, start=False)
    assert Path(job.spec["prompts"]).read_text() == "here"
    assert job.spec["out"] == str(tmp_path / "made")
    bundled = jobs.submit(store, "profile", {"teacher": "demo"}, start=False)
    assert bundled.spec["teacher"] == "demo", "a folder of that name does not hide it"


def test_a_large_input_stays_in_its_place_and_must_not_change(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(job_inputs, "COPY_LIMIT", 10)
    data = tmp_path / "data.tar"
    data.write_text("eleven bytes and more")
    same = jobs.submit(store, "count", {"data": str(data)}, start=False)
    assert same.spec["data"] == str(data)
    assert list((same.folder / "inputs").iterdir()) == []
    jobs.ensure_worker(store.workspace, "cpu")
    wait_for(store, same.id, "done")
    changed = jobs.submit(store, "count", {"data": str(data)}, start=False)
    os.utime(data, (time.time() + 9, time.time() + 9))
    resized = jobs.submit(store, "count", {"data": str(data)}, start=False)
    data.write_text("another length of the file")
    jobs.ensure_worker(store.workspace, "cpu")
    assert f"data {data} has" in wait_for(store, changed.id, "failed").error
    assert "since the job was queued" in wait_for(store, resized.id, "failed").error


def test_copying_inputs_holds_up_nobody(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another writer gets its turn while a copy is under way."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("text")
    copying = threading.Event()
    written = threading.Event()

    def slow_copy(source: Path, target: Path) -> None:
        copying.set()
        assert written.wait(10), "the database was locked during the copy"
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(job_inputs.shutil, "copy2", slow_copy)
    submit = threading.Thread(
        target=jobs.submit,
        args=(store, "count", {"prompts": str(prompts)}),
        kwargs={"start": False},
    )
    submit.start()
    assert copying.wait(10)
    with store.db() as db:
        db.execute("DELETE FROM request")
    written.set()
    submit.join()
    assert len(jobs.list_jobs(store)) == 1


# --- output paths ---------------------------------------------------------------------------------


def test_an_output_that_an_unfinished_job_writes_is_refused(store: Store, tmp_path: Path):
    out = str(tmp_path / "out")
    first = jobs.submit(store, "count", {"out": out}, start=False)
    for spec in ({"out": out}, {"out": str(tmp_path / "x" / ".." / "out")}):
        with pytest.raises(BadInput) as error:
            jobs.submit(store, "count", spec, start=False)
        assert first.id in error.value.found
    assert len(jobs.list_jobs(store)) == 1
    assert not list((store.workspace / "jobs").glob(".new-*")), "nothing is left of the refused"
    jobs.cancel(store, first.id)
    second = jobs.submit(store, "count", {"out": out}, start=False)
    with pytest.raises(BadInput) as error:
        jobs.resume(store, first.id, start=False)
    assert second.id in error.value.found


def test_a_paused_job_keeps_its_output_and_a_done_one_does_not(store: Store, tmp_path: Path):
    out = str(tmp_path / "out")
    job = jobs.submit(store, "count", {"out": out}, start=False)
    jobs.pause(store, job.id)
    with pytest.raises(BadInput):
        jobs.submit(store, "count", {"out": out}, start=False)
    jobs.resume(store, job.id)
    wait_for(store, job.id, "done")
    jobs.submit(store, "count", {"out": out}, start=False)


def test_a_free_path_is_none_that_a_queued_job_writes(store: Store):
    first = store.out("student", "small")
    jobs.submit(store, "count", {"out": str(first)}, start=False)
    second = store.out("student", "small")
    assert (first.name, second.name) == ("small", "small-2")
    store.path.unlink()
    assert store.out("student", "small") == second, "a reservation outlives the database"


def test_two_jobs_that_ask_for_a_path_at_once_get_two(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    """On two devices, so that they run at the same time; neither has made its folder yet."""
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    running = [jobs.submit(store, "place", {}, device=device) for device in ("cpu", "cuda")]
    until(lambda: all(jobs.show(store, job.id).message for job in running))
    paths = {jobs.show(store, job.id).message for job in running}
    assert len(paths) == 2
    for job in running:
        jobs.cancel(store, job.id)
        wait_for(store, job.id, "done", "cancelled")
    assert str(store.out("student", "same")) in paths, "a reservation ends with its job"


def test_a_resumed_job_gets_the_path_that_it_had(store: Store):
    first, second = (
        Store(store.workspace, job=jobs.submit(store, "count", {}, start=False).id)
        for _ in range(2)
    )
    assert first.out("student", "same").name == "same"
    path = second.out("student", "same")
    assert path.name == "same-2"
    jobs.cancel(store, first.job)
    assert second.out("student", "same") == path, "not the one that has become free"
    store.path.unlink()
    assert Store(store.workspace, job=second.job).out("student", "same") == path
