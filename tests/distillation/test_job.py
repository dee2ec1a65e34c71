"""The whole verb on tiny pipelines: signals, processes that die, trackers, pictures along the way,
estimates.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import accelerate.tracking
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import workbench
from tests.distill_world import World, make_plan
from tests.tiny import tiny_qwen_pipeline
from workbench import plans, tasks
from workbench.demo import scene_data as data
from workbench.plugins import register, unregister
from workbench.records import (
    BadInput,
    Card,
    DistillSpec,
    Progress,
    Row,
    SensitivityMap,
    Span,
    Stage,
)
from workbench.tasks.distill import fitted_in_words
from workbench.tasks.distill_estimate import fit_steps, short_stage
from workbench.tasks.distill_work import scores_for, with_steps
from workbench.tasks.lineage import lineage
from workbench.tasks.pace import at_first_pace
from workbench.training.batch import Drawing
from workbench.training.cache import Sample, Shard, write_shard
from workbench.training.data_sources import CacheRequest, DataSource
from workbench.training.encode import cache_writer
from workbench.workspace import jobs
from workbench.workspace.store import Store

from .test_stages import FED, FULL, PATH

ROOT = Path(__file__).parents[2]
SPEC = DistillSpec(
    name="tiny",
    stages=[
        FED.model_copy(update={"steps": 10, "batch": 2, "lr": 1e-3, "optimizer": "adamw"}),
        FULL.model_copy(update={"steps": 30, "batch": 2}),
    ],
)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a teacher of four blocks, a built student of two, a spec and prompts."""
    space = tmp_path_factory.mktemp("job")
    teacher = tiny_qwen_pipeline(space / "teacher", depth=4)
    (space / "prompts.txt").write_text("a red circle\na blue square\n")
    SPEC.save(space / "spec.yaml")
    long = SPEC.stages[0].model_copy(update={"steps": 100_000})
    SPEC.model_copy(update={"stages": [long]}).save(space / "long.yaml")
    tasks.run(
        "plan",
        {"teacher": str(teacher), "keep": 2, "init": "mean", "out": str(space / "plan.yaml")},
        space / "workspace",
    )
    tasks.run(
        "build",
        {"plan": str(space / "plan.yaml"), "out": str(space / "built")},
        space / "workspace",
    )
    return space


def given(space: Path, out: str, **more: Any) -> dict[str, Any]:
    return {
        "student": str(space / "built"),
        "spec": str(space / "spec.yaml"),
        "data": str(space / "prompts.txt"),
        "size": 32,
        "sampling_steps": 2,
        "out": str(space / out),
        **more,
    }


def newest(space: Path) -> Path:
    return max((space / "workspace" / "jobs").glob("*-distill"))


def background(space: Path, out: str, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "workbench",
        "distill",
        str(space / "built"),
        "-o",
        str(space / out),
        "--size",
        "32",
        "--watch",
        "0",
        "--spec",
        str(space / "long.yaml"),
        "--data",
        str(space / "prompts.txt"),
        "--workspace",
        str(space / "workspace"),
        *more,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WORKBENCH_DEVICE": "cpu",
    }
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def trained(space: Path, before: Path | None, child: subprocess.Popen[str]) -> Path:
    """Wait until the child's job has made some steps; its folder."""
    end = time.monotonic() + 150
    while time.monotonic() < end:
        assert child.poll() is None, child.communicate()
        jobs = [job for job in (space / "workspace" / "jobs").glob("*-distill") if job != before]
        rows = max(jobs) / "metrics.jsonl" if jobs else None
        if (
            rows
            and rows.exists()
            and rows.read_text().count("\n") > 5
            and (not before or max(jobs) > before)
        ):
            return max(jobs)
        time.sleep(0.05)
    raise AssertionError("it never began to train")


def test_pictures_scores_and_losses_go_along(space: Path, monkeypatch: pytest.MonkeyPatch):
    """The stand-in has accelerate's interface; docs/distillation.md says which real ones were tried
    by hand.
    """
    logged: list[dict[str, float]] = []

    class Tracker:
        requires_logging_directory = False
        finished = False

        def __init__(self, name: str) -> None:
            self.name = name

        def start(self) -> None:
            if self.name != "tracked":
                raise ModuleNotFoundError

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            assert values["stages"] == "fed, full"

        def log(self, values: dict[str, float], step: int) -> None:
            logged.append({"step": step, **values})

        def finish(self) -> None:
            Tracker.finished = True

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "trackio", Tracker)
    result = tasks.run(
        "distill", given(space, "tracked", watch=20, trackers=["trackio"]), space / "workspace"
    )
    assert [row["step"] for row in logged] == list(range(1, 41)) and Tracker.finished
    assert {"loss", f"loss/{PATH}.0", f"loss/{PATH}.1", "feature"} <= set(logged[0])
    samples = sorted(p.name for p in (newest(space) / "samples").iterdir())
    assert samples == [
        "prompts.txt",
        *(f"step-{n:08d}-{i:02d}.png" for n in (20, 40) for i in range(4)),
    ]
    card = Card.load(space / "tracked" / "card.json")
    assert card.metrics["recoverability"] == result["recoverability"]
    assert {(r["stage"], r["span"]) for r in result["recoverability"]} == {
        ("fed", 0),
        ("fed", 1),
        ("full", 0),
        ("full", 1),
    }
    with pytest.raises(BadInput) as missing:
        tasks.run("distill", given(space, "untracked", trackers=["trackio"]), space / "workspace")
    assert missing.value.do == "pip install trackio"
    with pytest.raises(BadInput) as unknown:
        tasks.run("distill", given(space, "untracked", trackers=["paper"]), space / "workspace")
    assert unknown.value.found == "tracker 'paper'"


@pytest.mark.parametrize("count", [1, 2])
def test_sigterm_leaves_a_checkpoint_of_the_last_step_and_no_process(space: Path, count: int):
    before = newest(space) if list((space / "workspace" / "jobs").glob("*-distill")) else None
    child = background(space, f"stopped-{count}", "--processes", str(count))
    job = trained(space, before, child)
    others = psutil.Process(child.pid).children()
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    last = json.loads((job / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    [checkpoint] = (space / f"stopped-{count}.checkpoints").glob("step-*")
    assert checkpoint.name == f"step-{last:08d}" and not (space / f"stopped-{count}").exists()
    assert json.loads((checkpoint / "run.json").read_text())["step"] == last
    assert len(others) == count - 1 and not psutil.wait_procs(others, timeout=10)[1]


def test_a_hybrid_student_split_between_processes_has_the_losses_and_pictures_of_a_whole_one(
    space: Path,
):
    spans = [
        Span(blocks=(0, 0)),
        Span(blocks=(1, 2), init="mean", stream="single"),
        Span(blocks=(3, 3), drop=("text.output", "mlp")),
    ]
    plan = make_plan(*spans).model_copy(update={"teacher": str(space / "teacher")})
    plan.save(space / "hybrid.yaml")
    short = {"steps": 2, "batch": 2, "precision": "float32"}
    single = {**short, "name": "single", "train": "single"}
    stages = [
        FED.model_copy(update=short),
        FULL.model_copy(update=single),
        FULL.model_copy(update=short),
    ]
    DistillSpec(stages=stages).save(space / "short.yaml")
    tasks.run(
        "build",
        {"plan": str(space / "hybrid.yaml"), "out": str(space / "hybrid")},
        space / "workspace",
    )
    losses, pictures = [], []
    for out, more in {"whole": {}, "split": {"processes": 2, "shard": True}}.items():
        rows: list[Progress] = []
        wanted = given(
            space,
            f"hybrid-{out}",
            student=str(space / "hybrid"),
            spec=str(space / "short.yaml"),
            watch=3,
            **more,
        )
        tasks.run("distill", wanted, space / "workspace", rows.append)
        losses.append([row.metrics["loss"] for row in rows if row.metrics])
        pictures.append(
            [
                np.asarray(Image.open(file)).astype(int)
                for file in sorted((newest(space) / "samples").glob("*.png"))
            ]
        )
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert (
        len(pictures[0]) == len(pictures[1]) == 8
        and max(abs(a - b).max() for a, b in zip(*pictures, strict=True)) <= 1
    )


def test_a_process_that_is_killed_ends_the_run_and_is_named(space: Path):
    before = newest(space) if list((space / "workspace" / "jobs").glob("*-distill")) else None
    child = background(space, "two", "--processes", "2")
    before = trained(space, before, child)
    [other] = psutil.Process(child.pid).children()
    other.kill()
    _, error = child.communicate(timeout=60)
    assert child.returncode == 1 and "process 1 of 2 ended with -9" in error


def test_a_run_that_is_killed_leaves_no_process():
    """What each process behind the first does before anything else."""
    rank = (
        "import os, time; from workbench.tasks.rank_processes import die_with_parent; "
        "die_with_parent(os.getppid()); "
        "print(1, flush=True); time.sleep(99)"
    )
    run = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {rank!r}]).wait()"
    child = subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdout and child.stdout.readline() == b"1\n"
    [other] = psutil.Process(child.pid).children()
    child.kill()
    child.wait()
    gone, alive = psutil.wait_procs([other], timeout=10)
    assert gone and not alive


def test_too_many_processes_are_refused(space: Path):
    with pytest.raises(BadInput) as error:
        tasks.run("distill", given(space, "three", processes=3), space / "workspace")
    assert error.value.found == "3 processes for a batch of 2"


def test_a_block_whose_states_are_no_numbers_is_named(world: World):
    with torch.no_grad():
        world.student.transformer_blocks[1].img_mlp.net[2].bias.fill_(float("nan"))  # type: ignore[index]
    with pytest.raises(BadInput) as error:
        world.run(FULL.model_copy(update={"losses": {"task": FULL.losses["output"]}}))
    assert error.value.found.endswith(f"loss nan at step 1, first in block 1 of {PATH}")
    assert error.value.do.endswith("last good checkpoint: none")


# --- estimates ------------------------------------------------------------------------------------


def test_an_estimate_says_what_the_run_then_takes(space: Path):
    said = tasks.run("distill", given(space, "none", estimate=True), space / "workspace")
    took = tasks.run("distill", given(space, "estimated", watch=0), space / "workspace")
    assert said["steps"] == took["steps"] == 40 and not (space / "none").exists()
    # steps of milliseconds; docs/distillation.md has figures of real ones
    assert 0.2 < said["seconds"] / took["processor_seconds"] < 5
    assert said["bytes"] > 4 * said["parameters"] and [row["steps"] for row in said["stages"]] == [
        10,
        30,
    ]


def test_an_estimate_on_paper_needs_no_weights(space: Path):
    plan = {
        "student": str(space / "plan.yaml"),
        "spec": str(space / "spec.yaml"),
        "estimate": True,
        "for": "8x80GB",
    }
    said = tasks.run("distill", plan, space / "workspace")
    same = tasks.run("distill", {**plan, "student": str(space / "built")}, space / "workspace")
    assert said == same and said["fits"] and said["devices"] == "8 x a100"
    for row in said["stages"]:
        assert row["bytes"] == pytest.approx(sum(row["terms"].values()))
    assert said["seconds"] == pytest.approx(sum(row["seconds"] for row in said["stages"]))


# --- the demo's scenes without end ----------------------------------------------------------------


def test_endless_scenes_never_repeat_and_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any
):
    made: list[int] = []

    def samples(pipe: Any, start: int, count: int) -> list[Any]:
        made.append(start)
        held = source.buckets[0].sample(0)
        return [type(held)(torch.full((4, 16), float(start + i)), held.text) for i in range(count)]

    monkeypatch.setattr(data, "scene_samples", samples)
    monkeypatch.setattr(
        data,
        "finish_cache",
        lambda pipe, folder, how, held, skipped: write_about(folder, held, source),
    )
    list(data.cache_scenes(None, scenes_request(0), tmp_path, lambda: False))
    endless = data.EndlessScenes(object(), tmp_path)
    seen = [int(x) for step in (0, 1, 5) for x in endless.batch(step, 100, 0).clean[:, 0, 0]]
    assert seen == [*range(200), *range(500, 600)] and made == [0, 256, 512]
    again = data.EndlessScenes(object(), tmp_path)
    assert torch.equal(again.batch(5, 100, 0).noisy, endless.batch(5, 100, 0).noisy) and made == [
        0,
        256,
        512,
    ]
    # Of two processes the second has no text encoder: what its half of a batch needs comes from the
    # first, whose half does without.
    other = data.EndlessScenes(None, tmp_path)
    with ThreadPoolExecutor(1) as process:
        half = process.submit(other.batch, 7, 100, 0, Drawing(part=(1, 2)))
        mine = endless.batch(7, 100, 0, Drawing(part=(0, 2)))
        both = torch.cat([mine.noisy, half.result(30).noisy])
    assert (
        made == [0, 256, 512, 768]
        and torch.equal(both, again.batch(7, 100, 0).noisy)
        and made == [0, 256, 512, 768]
    )
    monkeypatch.setattr(data, "PATIENCE", 0.1)
    with pytest.raises(RuntimeError, match=r"data-00009"):
        other.batch(9, 256, 0)


def test_two_processes_on_endless_scenes_have_the_losses_of_one(tmp_path: Path):
    """The bundled teacher, whose text encoder the first process alone has."""
    space, built, losses = tmp_path / "workspace", str(tmp_path / "built"), []
    stage = FULL.model_copy(
        update={"steps": 2, "batch": 2, "losses": {"output": FULL.losses["output"]}}
    )
    DistillSpec(stages=[stage]).save(tmp_path / "spec.yaml")
    tasks.run(
        "plan",
        {"teacher": "demo", "rule": "uniform", "keep": 2, "out": str(tmp_path / "plan.yaml")},
        space,
    )
    tasks.run("build", {"plan": str(tmp_path / "plan.yaml"), "out": built}, space)
    for count in (2, 1):
        wanted = {
            "student": built,
            "spec": str(tmp_path / "spec.yaml"),
            "scenes": 0,
            "processes": count,
            "out": str(tmp_path / f"{count}"),
        }
        rows: list[Progress] = []
        tasks.run("distill", wanted, space, rows.append)
        losses.append([row.metrics["loss"] for row in rows if row.metrics])
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def scenes_request(count: int | None) -> CacheRequest:
    return CacheRequest("scenes", "demo", size=128, steps=20, guidance=3.0, count=count)


def test_scenes_that_are_not_counted_are_the_usual_number():
    counts = [data.usual_count(scenes_request(count)) for count in (None, 0, 8)]
    assert counts == [data.USUAL, 0, 8]
    with pytest.raises(BadInput) as error:
        data.scenes_key(CacheRequest("scenes", "other", size=128, steps=20, guidance=3.0))
    assert "other" in error.value.found


def write_about(folder: Path, held: dict[Any, list[Path]], source: Any) -> None:
    write_shard(folder / "empty.safetensors", [Sample(torch.zeros(1, 1), source.empty.text)])
    [(size, paths)] = held.items()
    rows = [
        {
            "size": list(size),
            "shape": [1, 2, 2],
            "shards": [p.name for p in paths],
            "samples": sum(len(Shard(p)) for p in paths),
        }
    ]
    about = {
        "family": "qwenimage",
        "buckets": rows,
        "levels": [1.0],
        "alphas": None,
        "guidance": None,
    }
    (folder / "data.json").write_text(json.dumps(about))


# --- what a stage scales by -----------------------------------------------------------------------


def test_sensitivity_is_read_from_a_map_of_dropped_blocks_even_where_another_is_newer(space: Path):
    made = workbench.describe(space / "teacher", workspace=space / "workspace")
    about = {"teacher": made.name, "fingerprint": made.fingerprint, "family": made.family}

    def row(edit: str, block: int, last: int | None = None) -> Row:
        return Row(stack="transformer_blocks", block=block, last=last, edit=edit, score=1.0 + block)

    drops = SensitivityMap(**about, rows=[row("drop", b) for b in range(4)])
    spans = SensitivityMap(
        **about, metric="recovery", rows=[row("recovered", b, b + 1) for b in range(3)]
    )
    store = Store(space / "workspace")
    for name, found in (("drops", drops), ("spans", spans)):
        found.save(space / f"{name}.json")
        store.add("map", space / f"{name}.json")
    line = lineage(str(space / "built"), store)
    scaled = DistillSpec(stages=[FULL.model_copy(update={"scale": "inverse-sensitivity"})])
    assert scores_for(scaled, None, line, store) == plans.block_scores(drops)
    with pytest.raises(BadInput) as error:
        scores_for(scaled, str(space / "spans.json"), line, store)
    assert "metric recovery" in error.value.found


def test_minutes_are_worth_the_same_on_a_machine_that_is_slower_now(tmp_path: Path):
    record = tmp_path / "pace.json"
    assert at_first_pace([1.0, 3.0], 0.5, record) == [1.0, 3.0]  # the first run is the measure
    # everything takes twice as long
    assert at_first_pace([2.0, 6.0], 1.0, record) == [1.0, 3.0]
    stages = DistillSpec(stages=[FULL.model_copy(update={"steps": 100})])
    slow = fit_steps(stages, at_first_pace([2.0], 1.0, record), 60.0)
    assert slow == fit_steps(stages, [1.0], 60.0)


@pytest.mark.parametrize(
    ("seconds", "limit", "counts"),
    [
        ([1.0, 2.0], 1e6, [100, 50]),  # a limit, not a target: nothing is added
        ([1.0, 2.0], 100.0, [45, 22]),  # 90 s of 200 are left
        ([1.0, 2.0], 0.01, [1, 1]),
    ],
)
def test_a_time_limit_only_takes_steps_away(seconds: list[float], limit: float, counts: list[int]):
    short, long = (FULL.model_copy(update={"steps": n, "warmup": 10}) for n in (100, 50))
    stages = DistillSpec(stages=[short, long])
    fitted = fit_steps(stages, seconds, limit)
    assert [stage.steps for stage in fitted.stages] == counts
    assert [stage.warmup for stage in fitted.stages] == [min(10, n // 5) for n in counts]
    none = with_steps(stages, 0)
    assert fit_steps(none, seconds, limit) == none


def test_what_a_time_limit_makes_of_the_steps_is_said(
    space: Path, capfd: pytest.CaptureFixture[str]
):
    """On stderr, which is a job's log: what was requested and what it became."""
    rows: list[Progress] = []
    spec = given(space, "limited", steps=40, minutes=60, watch=0)
    result = tasks.run("distill", spec, space / "workspace", rows.append)
    assert result["steps"] == 40, "an hour is a limit for 40 steps, and no target"
    assert "all 40 steps fit into 60 minutes" in capfd.readouterr().err
    spec = given(space, "shorter", steps=400_000, minutes=0.01, watch=0)
    result = tasks.run("distill", spec, space / "workspace", rows.append)
    line = fitted_in_words(400_000, result["steps"], 0.01)
    assert result["steps"] < 400_000 and line in capfd.readouterr().err
    assert line in [row.message for row in rows]
    during = [row.message for row in rows if row.total == result["steps"] and not row.result]
    assert all(message.endswith(f"; {line}") for message in during), "and stays to be read"


def test_the_log_of_a_distillation_says_what_was_resolved_its_losses_and_what_it_wrote(space: Path):
    spec = given(space, "logged", steps=40, watch=0)
    result = tasks.run("distill", spec, space / "workspace")
    job = jobs.list_jobs(Store(space / "workspace"))[0]
    log = [line[9:] for line in (job.folder / "log.txt").read_text().splitlines()]
    told = [line.partition(":")[0].partition(" '")[0] for line in log]
    for word in ("student", "teacher", "devices", "data", "stage", "writes"):
        assert word in told, word
    rows, _ = jobs.metrics(Store(space / "workspace"), job.id)
    for line in (line for line in log if " of 40, " in line and "loss " in line):
        step, _, rest = line.partition(" of 40, ")
        [loss] = [row["loss"] for row in rows if row["step"] == int(step)]
        assert f"loss {loss:.4g}" in rest
    assert f"wrote {result['student']}" in log and log[-1].startswith("done in ")


def test_pictures_that_were_skipped_are_counted_and_named(
    space: Path, capfd: pytest.CaptureFixture[str]
):
    folder = space / "pictures"
    folder.mkdir()
    rows = []
    for number in range(5):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(folder / f"{number}.png")
        text = "" if number % 2 else "a red square"
        rows.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    spec = given(space, "skipping", data=str(folder), watch=0)
    result = tasks.run("distill", spec, space / "workspace")
    (row,) = result["skipped"]
    assert (row["data"], row["count"], row["samples"]) == (str(folder), 2, 3)
    assert "1.png" in row["first"] and "no caption" in row["first"]
    assert f"data {folder}: 2 of 5 skipped" in capfd.readouterr().err


def test_data_of_the_users_own_kind(space: Path):
    """A registered source: prompts out of a name, with no file."""

    def cache(pipe: Any, request: CacheRequest, folder: Path, stop: Any) -> Any:
        size = {"size": request.size, "steps": request.steps, "guidance": request.guidance}
        return cache_writer.cache_prompts(pipe, ["a", "b"], folder, stop=stop, **size)

    row = DataSource("two letters", lambda text: text == "letters", lambda request: "1", cache)
    register("data_source", "letters", row)
    try:
        spec = given(space, "lettered", data="letters", watch=0)
        assert tasks.run("distill", spec, space / "workspace")["steps"] == 40
    finally:
        unregister("data_source", "letters")
    with pytest.raises(BadInput) as error:
        tasks.run("distill", given(space, "unknown", data="letters"), space / "workspace")
    assert "scenes" in error.value.expected


def test_the_probe_of_several_processes_takes_a_share_of_the_batch_where_each_has_a_device_of_its_own():
    stage = Stage(name="kd", batch=50, warmup=9, steps=1000)
    batches = {}
    for processes in (1, 4):
        for on_cpu in (True, False):
            short = short_stage(stage, processes, on_cpu)
            batches[processes, on_cpu] = short.batch
            assert (short.steps, short.warmup) == (7, 0)
    assert batches == {(1, True): 50, (1, False): 50, (4, True): 50, (4, False): 13}
