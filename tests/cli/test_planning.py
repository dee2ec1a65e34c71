"""`plan` and `plan-info` on the command line: every kind of rule, sizes, recipes, students, free
cuts, differences.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import plans
from workbench.plans import block_scores
from workbench.records import Modulation, Plan, Progress, Row, SensitivityMap
from workbench.specs import PlanSpec
from workbench.tasks import Context
from workbench.tasks.plan import is_quick, plan
from workbench.workspace.store import Store

from .conftest import PLAN_KEYS, Run, one_line, only_json

PATH = "transformer_blocks"


@pytest.fixture(scope="session")
def config(tiny: Path) -> Path:
    return tiny / "transformer" / "config.json"


def a_map(home: Path, name: str, metric: str, rows: list[Row]) -> Path:
    return SensitivityMap(
        teacher="t", fingerprint="", family="qwenimage", metric=metric, rows=rows
    ).save(home / f"{name}.json")


@pytest.fixture(scope="session")
def drops(home: Path) -> Path:
    return a_map(
        home,
        "drops",
        "prediction",
        [
            Row(stack=PATH, block=b, edit="drop", timestep=500.0, score=1.0 + b % 3)
            for b in range(4)
        ],
    )


def test_plan_and_plan_info_work_with_a_config_alone(command: Run, config: Path, home: Path):
    out = home / "config-plan.yaml"
    made = only_json(command("plan", config, "--keep", 2, "-o", out, "--json"))
    told = only_json(command("plan-info", out, "--json"))
    assert set(told) >= PLAN_KEYS
    assert {k: made[k] for k in PLAN_KEYS} == {k: told[k] for k in PLAN_KEYS}
    assert told["free_cuts"][0]["drop"] == "text.output" and told[
        "predicted_latency"
    ] == pytest.approx(0.5)
    assert "that no output depends on" in command("plan-info", out).stdout


def test_free_cuts_are_made_on_request(command: Run, config: Path, home: Path):
    made = only_json(
        command("plan", config, "--keep", 2, "--free-cuts", "-o", home / "free.yaml", "--json")
    )
    assert Plan.load(home / "free.yaml").stacks[PATH][-1].drop == ("text.output",)
    assert made["free_cuts"] == [] and made["stock" if "stock" in made else "rule"] is not None


def test_print_shows_every_span_with_its_reason(
    command: Run, config: Path, home: Path, drops: Path
):
    shown = command(
        "plan",
        config,
        "--rule",
        "amber",
        "--keep",
        2,
        "--sensitivity",
        drops,
        "-o",
        home / "p.yaml",
        "--print",
    ).stdout
    assert "rank 1 of 4" in shown and "stands for" in shown
    even = only_json(command("plan", config, "--keep", 3, "-o", home / "q.yaml", "--json"))
    assert [row["reason"] for row in even["spans"]][-1].endswith("even spans")


@pytest.mark.parametrize("budget", ["params=0.6", "bytes=0.1MB@int4", "latency=0.6"])
def test_budgets(command: Run, config: Path, home: Path, budget: str):
    made = only_json(command("plan", config, "--budget", budget, "-o", home / "b.yaml", "--json"))
    name, _, value = budget.partition("=")
    met = {
        "params": made["ratio"],
        "latency": made["predicted_latency"],
        "bytes": made["memory"]["int4"],
    }[name]
    assert met <= (0.1e6 if name == "bytes" else float(value))
    assert Plan.load(home / "b.yaml").origin["budget"].startswith(name)


def test_amber_in_two_steps_is_amber_6b_in_one(command: Run, tiny: Path, home: Path, drops: Path):
    single, made = ("--single-from", 1, "--json"), ("--sensitivity", drops, "-o")
    once = only_json(
        command("plan", tiny, "--recipe", "amber-6b", *made, home / "once.yaml", *single)
    )
    only_json(command("plan", tiny, "--recipe", "amber-10b", *made, home / "ten.yaml", "--json"))
    student = only_json(command("build", home / "ten.yaml", "-o", home / "ten", "--json"))[
        "student"
    ]
    twice = only_json(
        command("plan", student, "--recipe", "amber-6b", "-o", home / "twice.yaml", *single)
    )
    assert twice["parameters"] == once["parameters"] and twice["single"] == once["single"] == {
        PATH: 1
    }
    assert twice["teacher_parameters"] < once["teacher_parameters"]
    assert Plan.load(home / "twice.yaml").teacher == student
    whole = plans.compose(Plan.load(home / "twice.yaml"), Plan.load(home / "ten.yaml"))
    assert whole is not None and whole.stacks == Plan.load(home / "once.yaml").stacks
    hybrid = only_json(command("build", home / "twice.yaml", "-o", home / "six", "--json"))[
        "student"
    ]
    # a student of a student of a student
    third = only_json(command("plan", hybrid, "--keep", 2, "-o", home / "third.yaml", "--json"))
    assert third["parameters"] == third["teacher_parameters"] == twice["parameters"]
    one = only_json(
        command(
            "plan",
            hybrid,
            "--budget",
            "params=0.8",
            "--single-from",
            0,
            "-o",
            home / "fourth.yaml",
            "--json",
        )
    )
    assert one["parameters"] < twice["parameters"] and one["single"] == {PATH: 2}


def test_a_rule_that_measures_runs_as_a_job_and_says_what_it_measured(
    command: Run, tiny: Path, home: Path
):
    (home / "one.txt").write_text("a red circle\n")
    flags = ("--prompts", home / "one.txt", "--timesteps", 2, "--steps", 2, "--size", 32, "--json")
    made = only_json(
        command(
            "plan",
            tiny,
            "--rule",
            "greedy",
            "--keep",
            3,
            *flags,
            "--edits",
            "join",
            "-o",
            home / "greedy.yaml",
        )
    )
    assert (
        made["measured_error"] > 0 and made["measured_plans"] >= 18 and made["depth"] == {PATH: 3}
    )
    jobs = only_json(command("jobs", "list", "--json"))["jobs"]
    assert any(job["kind"] == "plan" and job["state"] == "done" for job in jobs)
    better = only_json(
        command(
            "plan",
            tiny,
            "--rule",
            "search",
            "--start",
            home / "greedy.yaml",
            *flags,
            "--tries",
            5,
            "-o",
            home / "better.yaml",
        )
    )
    assert better["measured_error"] <= made["measured_error"] * (1 + 1e-6) and better["depth"] == {
        PATH: 3
    }
    told = only_json(
        command("plan-info", home / "better.yaml", "--against", home / "greedy.yaml", "--json")
    )
    assert isinstance(told["difference"], list)


def test_what_one_plan_does_otherwise_than_another(command: Run, config: Path, home: Path):
    only_json(command("plan", config, "--keep", 2, "-o", home / "even.yaml", "--json"))
    only_json(
        command(
            "plan",
            config,
            "--keep",
            2,
            "--init",
            "mean",
            "--gain",
            "length",
            "-o",
            home / "mean.yaml",
            "--json",
        )
    )
    told = only_json(
        command("plan-info", home / "mean.yaml", "--against", home / "even.yaml", "--json")
    )
    assert told["difference"] == ["blocks 0-3: init first -> mean, gain 1 -> 2"]
    assert (
        "init first -> mean"
        in command("plan-info", home / "mean.yaml", "--against", home / "even.yaml").stdout
    )


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--keep", 2, "--rule", "ppcl"), "no sensitivity map"),
        (("--keep", 2, "--budget", "params=0.5"), "both --keep and --budget"),
        (("--budget", "bytes=6GB@int3"), "int3"),
        (("--keep", 2, "--rule", "uniform", "--minutes", 1), "option minutes"),
        (("--keep", 2, "--init", "centre"), "init 'centre'"),
        (("--keep", 2, "--gain", "-1"), "gain -1"),
        (("--keep", 2, "--rule", "greedy"), "file without weights"),
        (("--keep", 2, "--single-from", "1.5"), "single_from 1.5"),
        (("--recipe", "nothing"), "recipe 'nothing'"),
        (("--keep", 2, "--rule", "search", "--start", "greedy"), "--start greedy"),
    ],
)
def test_bad_flags_are_one_line(command: Run, config: Path, flags: tuple[object, ...], word: str):
    assert word in one_line(command("plan", config, *flags))


def test_a_map_of_another_metric_is_one_line(command: Run, config: Path, home: Path, drops: Path):
    assert "expected metric influence" in one_line(
        command("plan", config, "--keep", 2, "--rule", "influence", "--sensitivity", drops)
    )
    spans = [
        Row(stack=PATH, block=u, last=k, edit="span", score=0.9 ** (k - u))
        for u in range(4)
        for k in range(u, 4)
    ]
    found = a_map(home, "cka", "cka", spans)
    made = only_json(
        command(
            "plan",
            config,
            "--keep",
            2,
            "--rule",
            "ppcl",
            "--sensitivity",
            found,
            "-o",
            home / "c.yaml",
            "--json",
        )
    )
    assert made["depth"] == {PATH: 2} and json.dumps(made["spans"])


def test_a_map_of_recovery_makes_a_plan_and_other_maps_do_not(
    command: Run, config: Path, home: Path, drops: Path
):
    flags = ("plan", config, "--keep", 3, "--rule", "recoverable")
    assert "`workbench profile --metric recovery`" in one_line(
        command(*flags, "--sensitivity", drops)
    )
    assert "`workbench profile --metric recovery`" in one_line(command(*flags))
    rows = [
        Row(stack=PATH, block=u, last=u + 1, edit=edit, timestep=500.0, score=score)
        for edit, times in (("zero-shot", 9), ("recovered", 1))
        for u, score in enumerate((0.3 * times, 0.1 * times, 0.2 * times))
    ]
    found = a_map(home, "recovery", "recovery", rows)
    done = command(*flags, "--sensitivity", found, "-o", home / "r.yaml", "--print")
    assert "one block for 1-2: 0.9 -> 0.1 after" in " ".join(done.stdout.split())
    assert [span.blocks for span in Plan.load(home / "r.yaml").stacks[PATH]] == [
        (0, 0),
        (1, 2),
        (3, 3),
    ]


def test_a_rule_that_measures_stops_when_told(tiny: Path, home: Path):
    seen: list[Progress] = []
    context = Context(Store(home / "stopping"), "cpu", stop=lambda: len(seen) > 5)
    spec = {
        "teacher": str(tiny),
        "rule": "greedy",
        "keep": 2,
        "prompts": str(home / "one.txt"),
        "timesteps": 2,
        "steps": 2,
        "size": 32,
    }
    (home / "one.txt").write_text("a red circle\n")
    for progress in plan(PlanSpec.parse(spec), context):
        seen.append(progress)
    assert all(progress.result is None for progress in seen) and len(seen) < 8
    assert not is_quick(PlanSpec.parse(spec)) and is_quick(PlanSpec(teacher="demo", rule="amber"))


def test_rank_auto_is_the_smallest_within_the_error(command: Run, tmp_path: Path):
    """Against the map's own scores at each rank; a stricter error takes a larger rank."""
    ranks = (4, 8, 16, 32, 64)
    edits = ",".join(f"modulation:rank={rank}" for rank in ranks)
    file = tmp_path / "map.json"
    only_json(command("profile", "demo-12", "--edits", edits, "-o", file, "--json"))
    scores = SensitivityMap.load(file)
    worst = {}
    for rank in ranks:
        worst[rank] = max(block_scores(scores, f"modulation:rank={rank}", "uniform").values())
    for error in (1e-2, 1e-4):
        expected = min(rank for rank in ranks if worst[rank] <= error)
        out = tmp_path / f"{error}.yaml"
        given = ("--keep", 12, "--modulation-rank", "auto", "--modulation-error", error)
        only_json(command("plan", "demo-12", *given, "-o", out, "--json"))
        assert Plan.load(out).modulation == Modulation(rank=expected)


def test_a_measured_rank_needs_recorded_vectors_where_t_is_not_all(command: Run, tmp_path: Path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"_class_name": "FluxTransformer2DModel", "num_layers": 2}))
    given = ("--keep", "transformer_blocks=1", "--modulation-rank", "auto")
    line = one_line(command("plan", config, *given))
    assert "--conditioning FILE" in line and "pooled" in line
