"""Jobs on a real Slurm of this machine: followed, stopped, requeued, never running for ever."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.tiny import tiny_qwen_pipeline
from workbench import tasks
from workbench.records import BadInput
from workbench.specs import parse_spec
from workbench.workspace import chains, job_control, jobs
from workbench.workspace.cluster import following
from workbench.workspace.cluster.settings import ClusterSettings
from workbench.workspace.job_files import read_metrics, read_progress
from workbench.workspace.store import Store

from .conftest import until
from .slurm_lab import Lab, missing

SETTINGS = ClusterSettings(minutes=5, notice=15, gpus=0, cpus=1, setup="export FROM_SETUP=1")
TWO_STAGES = """
name: tiny
stages:
  - {name: warm, gradient: span, inputs: teacher, train: merged, steps: 10, batch: 2, optimizer: adamw, lr: 1.0e-3}
  - {name: full, gradient: full, inputs: student, losses: {output: {}}, train: all, steps: 20, batch: 2, optimizer: adamw, lr: 1.0e-3}
"""
LATER = SETTINGS.model_copy(update={"options": {"begin": "now+1hour"}})
ENDED = ("done", "failed", "cancelled", "lost", "paused")
pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no {', '.join(missing())}")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="lab") as folder:  # a short path, for a socket
        cluster = Lab(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def slurm(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    pytest.importorskip("submitit")
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    return lab


def looked(store: Store, job: str) -> jobs.Job:
    """A job as a front end sees it that looks now."""
    jobs.wake(store)
    return jobs.show(store, job)


def wait_for(store: Store, job: str, *states: str) -> jobs.Job:
    until(lambda: looked(store, job).state in states, 60)
    return jobs.show(store, job)


def step_of(store: Store, job: str) -> int:
    return looked(store, job).step


def test_a_job_runs_on_a_node_and_its_files_say_how_it_was(store: Store, slurm: Lab):
    job = jobs.submit(store, "count", {"steps": 5}, on=SETTINGS)
    assert job.state == "queued"
    assert job.engine == "slurm" and job.engine_id.isdecimal()
    done = wait_for(store, job.id, "done", "failed", "lost")
    assert done.state == "done", done.error
    assert done.result == {"counted": 5}
    assert done.attempt == 1
    rows, _ = jobs.metrics(store, job.id)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]


def test_a_job_stopped_by_a_signal_goes_on_from_its_checkpoint(store: Store, slurm: Lab):
    """SIGUSR2 is what Slurm sends before the time limit, SIGTERM what a preempted job gets."""
    spec = {"steps": 150, "pause": 0.02, "every": 1000}
    timed_out = jobs.submit(store, "count", spec, on=SETTINGS)
    preempted = jobs.submit(store, "count", spec, on=SETTINGS)
    for job in (timed_out, preempted):
        until(lambda job=job: step_of(store, job.id) > 5, 60)
    slurm.ask("scancel", "--signal=USR2", timed_out.engine_id)
    slurm.ask("scancel", "--signal=TERM", preempted.engine_id)
    for job in (timed_out, preempted):
        done = wait_for(store, job.id, "done", "failed", "lost", "paused", "cancelled")
        assert done.state == "done", done.error
        assert done.attempt == 2
        rows, _ = read_metrics(done.folder)
        assert [row["step"] for row in rows] == list(range(1, 151))
        first = (done.folder / "metrics.jsonl").read_text().splitlines()
        second = (done.folder / "metrics-2.jsonl").read_text().splitlines()
        assert len(first) + len(second) == 150, "no step was done twice"


def test_cancel_and_pause_stop_a_running_job_with_its_checkpoint(store: Store, slurm: Lab):
    spec = {"steps": 2000, "pause": 0.02, "every": 5000}
    ends = {}
    for stop in (jobs.cancel, jobs.pause):
        ends[jobs.submit(store, "count", spec, on=SETTINGS).id] = stop
    for job, stop in ends.items():
        until(lambda job=job: step_of(store, job) > 5, 60)
        assert stop(store, job).state in ("stopping", "cancelled", "paused")
    [cancelled, paused] = [wait_for(store, job, "cancelled", "paused", "failed") for job in ends]
    assert (cancelled.state, paused.state) == ("cancelled", "paused")
    place = int((paused.folder / "checkpoints" / "step").read_text())
    resumed = jobs.resume(store, paused.id)
    assert resumed.engine_id != paused.engine_id
    until(lambda: step_of(store, paused.id) > place, 60)
    assert looked(store, paused.id).attempt == 2
    jobs.cancel(store, paused.id)
    wait_for(store, paused.id, "cancelled")
    until(lambda: slurm.ask("squeue", "-h", "-o", "%T") == "")


def test_a_waiting_job_is_withdrawn_and_sent_again(store: Store, slurm: Lab):
    job = jobs.submit(store, "count", {"steps": 1}, on=LATER)
    waiting = looked(store, job.id)
    assert waiting.state == "queued"
    assert waiting.error == "waits in Slurm: BeginTime"
    assert jobs.pause(store, job.id).state == "paused"
    until(
        lambda: (
            slurm.ask("squeue", "-h", "-t", "all", "-j", job.engine_id, "-o", "%T") == "CANCELLED"
        )
    )
    again = jobs.resume(store, job.id)
    assert looked(store, job.id).state == "queued"
    twin = job_control.duplicate(store, job.id)
    assert twin.engine == "slurm" and twin.engine_id != again.engine_id
    for one in (job, twin):
        assert jobs.cancel(store, one.id).state == "cancelled"
    assert again.engine_id != job.engine_id


def test_ends_that_the_job_did_not_choose(store: Store, slurm: Lab, tmp_path: Path):
    started = tmp_path / "started"
    crashed = jobs.submit(store, "crash", {}, on=SETTINGS)
    killed = jobs.submit(store, "count", {"steps": 9, "die_at": 3}, on=SETTINGS)
    deaf = jobs.submit(store, "deaf", {"started": str(started)}, on=SETTINGS)
    until(started.exists, 60)
    slurm.ask("scancel", deaf.engine_id)  # by somebody who knows nothing of us
    states = {job.id: wait_for(store, job.id, *ENDED) for job in (crashed, killed, deaf)}
    assert states[crashed.id].state == "failed"
    assert "ZeroDivisionError: by design" in states[crashed.id].error
    assert states[killed.id].state == "failed"
    assert states[killed.id].error.startswith("killed by SIGKILL")
    assert states[deaf.id].state == "cancelled"
    assert "slurm says CANCELLED" in states[deaf.id].error


def test_an_array_fails_with_one_task_and_resumed_makes_the_whole(
    store: Store, slurm: Lab, tmp_path: Path
):
    (tmp_path / "left").mkdir()
    job = jobs.submit(
        store, "tasks", {"processes": 3, "folder": str(tmp_path / "left"), "bad": 1}, on=SETTINGS
    )
    failed = wait_for(store, job.id, *ENDED)
    assert failed.state == "failed"
    assert failed.error.startswith("task 1: ZeroDivisionError: by design")
    assert "--- task 1" in jobs.log_tail(store, job.id)
    jobs.resume(store, job.id)
    left = slurm.ask("squeue", "-h", "-r", "-t", "all", "-o", "%F %T").splitlines()
    ended = [line for line in left if line.split()[0] == job.engine_id]
    assert all(line.endswith(("COMPLETED", "FAILED", "CANCELLED")) for line in ended), left
    done = wait_for(store, job.id, *ENDED)
    assert done.state == "done", done.error
    assert done.result == {"sum": 0 + 1 + 4}
    assert (done.step, done.total) == (6, 6)


def test_a_job_that_slurm_has_forgotten_is_lost(store: Store, slurm: Lab):
    job = jobs.submit(store, "count", {"steps": 900}, on=LATER)
    jobs.update(store, job.id, lambda db, row, state: {"engine_id": "999999"})
    assert looked(store, job.id).state == "lost"
    slurm.ask("scancel", job.engine_id)


def test_a_slurm_that_does_not_answer_is_named(
    store: Store, slurm: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = jobs.submit(store, "count", {"steps": 1}, on=LATER)
    for name in ("squeue", "scancel"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
        program.chmod(0o755)
    with monkeypatch.context() as broken:
        broken.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        silent = looked(store, job.id)
        assert silent.state == "queued"
        said = "slurm does not answer: squeue: Unable to contact slurm controller"
        assert silent.error == said
        with pytest.raises(BadInput, match="does not answer"):
            jobs.cancel(store, job.id)
    assert jobs.cancel(store, job.id).state == "cancelled"


def test_a_job_that_slurm_refuses_has_failed_and_says_why(store: Store, slurm: Lab):
    elsewhere = SETTINGS.model_copy(update={"partition": "elsewhere"})
    with pytest.raises(BadInput, match="invalid partition") as error:
        jobs.submit(store, "count", {"steps": 1}, on=elsewhere)
    assert "\n" not in str(error.value)
    [job] = jobs.list_jobs(store)
    assert job.state == "failed"


def test_a_node_needs_no_database(store: Store, slurm: Lab):
    job = jobs.submit(store, "place", {}, on=SETTINGS)
    with store.db() as db:  # nobody else gets in
        until(lambda: "same" in read_progress(job.folder).message, 60)
        db.execute("SELECT 1")
    jobs.cancel(store, job.id)
    wait_for(store, job.id, "cancelled", "done")


def test_where_there_is_no_sbatch_one_line_says_what_to_do(store: Store, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput) as error:
        jobs.submit(store, "count", {"steps": 1}, on=SETTINGS)
    assert str(error.value).startswith("no sbatch on this machine")
    assert "--print slurm" in str(error.value)
    assert jobs.list_jobs(store) == []


def test_a_distillation_on_two_nodes_survives_the_loss_of_a_process_and_ends_as_one_process_does(
    store: Store, slurm: Lab, tmp_path: Path
):
    teacher = tiny_qwen_pipeline(tmp_path / "teacher", depth=4)
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    plan = {"teacher": str(teacher), "keep": 2, "init": "mean", "out": str(tmp_path / "plan.yaml")}
    tasks.run("plan", plan, store.workspace)
    build = {"plan": str(tmp_path / "plan.yaml"), "out": str(tmp_path / "built")}
    tasks.run("build", build, store.workspace)
    (tmp_path / "spec.yaml").write_text(TWO_STAGES)
    spec = {
        "student": str(tmp_path / "built"),
        "spec": str(tmp_path / "spec.yaml"),
        "data": str(tmp_path / "prompts.txt"),
        "size": 32,
        "sampling_steps": 2,
        "watch": 0,
    }
    alone = tasks.run("distill", {**spec, "out": str(tmp_path / "alone")}, store.workspace)

    two_nodes = SETTINGS.model_copy(update={"nodes": 2})
    shared = {**spec, "out": str(tmp_path / "two"), "processes": 2, "checkpoint_every": 0.5}
    job = jobs.submit(store, "distill", shared, on=two_nodes)
    until(lambda: step_of(store, job.id) > 2, 240)
    [other] = [process for process in psutil.process_iter(["cmdline"]) if is_rank_of(process, job)]
    other.kill()
    failed = wait_for(store, job.id, *ENDED)
    assert failed.state == "failed"
    assert "process 1 of 2 ended with -9" in failed.error

    jobs.resume(store, job.id)
    until(lambda: looked(store, job.id).state in ENDED, 240)
    done = jobs.show(store, job.id)
    assert done.state == "done", done.error
    assert done.attempt == 2
    assert done.result["last_loss"] == pytest.approx(alone["last_loss"], rel=1e-4)


def is_rank_of(process: psutil.Process, job: jobs.Job) -> bool:
    """Whether this is a process behind a distillation's first."""
    command = process.info["cmdline"] or []
    return "workbench.tasks.rank_worker" in command and str(job.folder) in command[-1]


def test_processes_that_nodes_cannot_share_are_refused(store: Store, slurm: Lab, tmp_path: Path):
    two_nodes = SETTINGS.model_copy(update={"nodes": 2})
    with pytest.raises(BadInput) as error:
        jobs.submit(store, "count", {"steps": 1}, on=two_nodes)
    assert error.value.found == "nodes: 2 for count"
    one_gpu = SETTINGS.model_copy(update={"gpus": 1})
    for settings, found in (
        (two_nodes, "3 processes on 2 nodes"),
        (one_gpu, "3 processes on a node with gpus: 1"),
    ):
        with pytest.raises(BadInput) as error:
            jobs.submit(store, "distill", {"student": str(tmp_path), "processes": 3}, on=settings)
        assert error.value.found == found
    assert jobs.list_jobs(store) == []


def test_a_chain_runs_in_order_and_is_held_behind_a_link_that_was_stopped(
    store: Store, slurm: Lab, tmp_path: Path
):
    diary = str(tmp_path / "diary")
    long = {"steps": 2000, "pause": 0.02, "every": 5000, "diary": diary}
    short = {"steps": 2, "diary": diary}
    specs = [parse_spec("count", data) for data in (long, short, short)]
    made = chains.submit(store, specs, on=SETTINGS)
    assert [job.engine for job in made] == ["slurm"] * 3
    until(lambda: step_of(store, made[0].id) > 5, 60)
    assert looked(store, made[1].id).error == f"waits for {made[0].id}"

    jobs.pause(store, made[0].id)
    wait_for(store, made[0].id, "paused")
    held = looked(store, made[1].id)
    assert (held.state, held.error) == ("queued", f"held: it follows {made[0].id}, which is paused")
    changed = {**made[0].spec, "steps": step_of(store, made[0].id) + 20}
    jobs.update(store, made[0].id, lambda db, row, state: {"spec": json.dumps(changed)})
    jobs.resume(store, made[0].id)
    done = wait_for(store, made[2].id, *ENDED)
    assert done.state == "done", done.error
    order = [line.split(" ", 1)[1] for line in (tmp_path / "diary").read_text().splitlines()]
    first = [f"{word} {made[0].id}" for word in ("start", "end", "start", "end")]
    rest = [f"{word} {job.id}" for job in made[1:] for word in ("start", "end")]
    assert order == first + rest


def test_a_chain_that_was_cancelled_is_resumed_whole(store: Store, slurm: Lab):
    specs = [parse_spec("count", {"steps": 1}) for _ in range(3)]
    made = chains.submit(store, specs, on=LATER)
    assert chains.apply(store, made[0].chain, "cancel").state == "cancelled"
    for job in made:  # what begins in an hour would not end in this test
        following.write_settings(job.folder, SETTINGS)
    assert chains.apply(store, made[0].chain, "resume").state in ("queued", "running")
    done = wait_for(store, made[2].id, *ENDED)
    assert done.state == "done", done.error
