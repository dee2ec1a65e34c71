"""The contract of the command line (DESIGN section 9): keys, exit codes, one JSON object, one line
of complaint.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.records import Plan, SensitivityMap
from workbench.sensitivity.partial import finished_calls
from workbench.workspace import jobs
from workbench.workspace.store import Store

from .conftest import MAP_KEYS, PLAN_KEYS, Run, environment, one_line, only_json

FAST = ("--steps", 2, "--size", 32, "--timesteps", 2)


@pytest.fixture(scope="session")
def sensitivity(command: Run, tiny: Path, home: Path) -> Path:
    (home / "two.txt").write_text("a red circle\n# not this\n\na blue square\n")
    result = only_json(
        command(
            "profile", tiny, "-o", home / "map.json", "--prompts", home / "two.txt", *FAST, "--json"
        )
    )
    assert set(result) >= MAP_KEYS
    assert result["direction"] == "higher = keep"
    assert result["block_evaluations"] < result["naive_block_evaluations"]
    assert len(SensitivityMap.load(result["map"]).rows) == len(result["rows"]) == 2 * (4 + 3)
    return home / "map.json"


@pytest.fixture(scope="session")
def plan(command: Run, tiny: Path, home: Path, sensitivity: Path) -> Path:
    flags = ("-o", home / "plan.yaml", "--rule", "amber", "--keep", 2, "--sensitivity", sensitivity)
    result = only_json(command("plan", tiny, *flags, "--json"))
    assert set(result) >= PLAN_KEYS
    assert result["depth"] == {"transformer_blocks": 2}
    return home / "plan.yaml"


@pytest.fixture(scope="session")
def student(command: Run, home: Path, plan: Path) -> Path:
    result = only_json(command("build", plan, "-o", home / "student", "--json"))
    assert set(result) >= {"student", "parameters", "bytes", "seconds", "peak_rss_mib", "stock"}
    assert result["stock"] is True
    return Path(result["student"])


def test_info(child: Run, command: Run, tiny: Path):
    result = only_json(child("info", tiny, "--json"))
    assert set(result) >= {"family", "class", "parameters", "stacks", "parts", "memory"}
    [stack] = result["stacks"]
    assert (stack["path"], stack["depth"], stack["kind"]) == ("transformer_blocks", 4, "dual")
    assert result["parameters"] == result["outside"] + 4 * stack["block_parameters"]
    assert result["memory"]["bf16"] == 2 * result["parameters"]
    only_config = only_json(command("info", tiny / "transformer" / "config.json", "--json"))
    assert only_config["parameters"] == result["parameters"]
    assert "transformer_blocks" in command("info", tiny).stdout


def test_plan_info_finds_the_map_the_plan_was_made_from(command: Run, plan: Path):
    result = only_json(command("plan-info", plan, "--json"))
    assert result["predicted_error"] is None, "the map has no row for averages with gain 1"
    assert "merge:mean:1" in str(result["predicted_error_unknown"])
    assert result["ratio"] == result["parameters"] / result["teacher_parameters"]


def test_plan_flags(command: Run, tiny: Path, home: Path):
    flags = ("--keep", "transformer_blocks=2", "--init", "mean", "--gain", "length", "--print")
    done = command("plan", tiny / "transformer" / "config.json", "-o", home / "flags.yaml", *flags)
    assert done.returncode == 0, done.stderr
    assert "2 blocks in one, init mean, gain 2; even spans" in done.stdout
    assert [s.gain for s in Plan.load(home / "flags.yaml").stacks["transformer_blocks"]] == [
        2.0,
        2.0,
    ]
    budget = only_json(
        command(
            "plan",
            tiny,
            "-o",
            home / "budget.yaml",
            "--budget",
            "params=0.6",
            "--protect",
            "3",
            "--json",
        )
    )
    assert budget["ratio"] <= 0.6
    assert Plan.load(home / "budget.yaml").stacks["transformer_blocks"][-1].blocks == (3, 3)


def test_results_are_indexed_in_the_workspace(
    home: Path, sensitivity: Path, plan: Path, student: Path
):
    store = Store(home / "workspace")
    assert str(sensitivity) in [m.path for m in store.maps()]
    assert str(plan) in [p.path for p in store.plans()]
    assert str(student) in [s.path for s in store.students()]
    assert {j.kind for j in jobs.list_jobs(store)} >= {"profile", "build"}, (
        "what ran in the foreground shows in the app too"
    )
    assert all(j.state == "done" for j in jobs.list_jobs(store) if j.kind in ("profile", "build"))


def test_background_runs_as_a_job(command: Run, plan: Path, home: Path):
    job = only_json(command("build", plan, "-o", home / "student-2", "--background", "--json"))[
        "job"
    ]
    for _ in range(600):
        shown = only_json(command("jobs", "show", job, "--json"))
        if shown["state"] not in ("queued", "running"):
            break
        time.sleep(0.1)
    assert (shown["state"], shown["result"]["student"]) == ("done", str(home / "student-2"))
    rows = only_json(command("jobs", "--json"))["jobs"]
    assert set(rows[0]) >= {"id", "kind", "state", "step", "total", "error"}
    assert job in command("jobs", "list").stdout
    assert "attempt 1" in only_json(command("jobs", "log", job, "--json"))["log"]
    assert "expected a queued" in one_line(command("jobs", "cancel", job))


BAD_PLANS = {
    "hole": ("stacks: {transformer_blocks: [{blocks: 0}, {blocks: [2, 3]}]}", "block 1 in no span"),
    "overlap": (
        "stacks: {transformer_blocks: [{blocks: [0, 2]}, {blocks: [2, 3]}]}",
        "block 2 is in two spans",
    ),
    "unknown block": ("stacks: {transformer_blocks: [{blocks: [0, 9]}]}", "block 4 does not exist"),
    "no yaml": ("stacks: {{", "is not YAML"),
    "no plan": ("[1, 2]", "invalid plan"),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_a_bad_plan_is_one_line(command: Run, tiny: Path, home: Path, name: str):
    text, word = BAD_PLANS[name]
    file = home / f"{name}.yaml"
    file.write_text(
        f"teacher: {tiny}\nfamily: qwenimage\n{text}\n" if text.startswith("stacks") else text
    )
    assert word in one_line(command("plan-info", file))
    assert word in one_line(command("build", file, "-o", home / "no"))
    assert not (home / "no").exists()


def test_a_folder_that_is_no_pipeline_is_one_line(command: Run, home: Path):
    (home / "empty").mkdir()
    assert "model_index.json" in one_line(command("info", home / "empty"))
    assert "does not exist" in one_line(command("profile", home / "nowhere"))
    assert "no-such-org/no-such-model" in one_line(
        command("plan", "no-such-org/no-such-model", "--keep", 2)
    )


def test_a_truncated_checkpoint_is_one_line(child: Run, command: Run, tiny: Path, home: Path):
    shutil.copytree(tiny, home / "torn")
    [file] = (home / "torn" / "transformer").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    assert file.name in one_line(child("info", home / "torn")), (
        "the libraries must not chatter either"
    )
    assert file.name in one_line(command("profile", home / "torn", *FAST))


def test_bad_prompts_are_one_line(command: Run, tiny: Path, home: Path):
    assert "does not exist" in one_line(command("profile", tiny, "--prompts", home / "none.txt"))
    (home / "latin.txt").write_bytes(b"caf\xe9\n")
    assert "not UTF-8" in one_line(command("profile", tiny, "--prompts", home / "latin.txt"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("frobnicate",), "frobnicate"),
        (("info",), "TEACHER"),
        (("info", "x", "--frob"), "--frob"),
        (("jobs", "show", "99"), "'99'"),
        (("jobs", "frob"), "frob"),
        (("jobs", "cancel"), "without an id"),
        (("app", "--auth", "nocolon"), "USER:PASS"),
    ],
)
def test_bad_arguments_are_one_line(command: Run, arguments: tuple[str, ...], word: str):
    assert word in one_line(command(*arguments))


def test_a_bad_argument_in_a_process_of_its_own(child: Run):
    assert "frobnicate" in one_line(child("frobnicate"))


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ((), "neither --keep nor --budget"),
        (("--keep", "x"), "keep 'x'"),
        (("--keep", "9"), "keep 9 blocks"),
        (("--budget", "0.5"), "params=SHARE"),
        (("--keep", "2", "--rule", "magic"), "magic"),
        (("--keep", "2", "--rule", "amber", "--gain", "much"), "gain 'much'"),
    ],
)
def test_bad_plan_flags_are_one_line(command: Run, tiny: Path, flags: tuple[str, ...], word: str):
    assert word in one_line(command("plan", tiny, *flags))


def test_help_names_every_verb(command: Run):
    help_of = command("--help").stdout
    for verb in (
        "info",
        "profile",
        "plan",
        "plan-info",
        "build",
        "distill",
        "compare",
        "jobs",
        "app",
        "demo",
    ):
        assert f"  {verb} " in help_of


def test_ctrl_c_leaves_a_resumable_state(command: Run, tiny: Path, home: Path, sensitivity: Path):
    arguments = [
        "profile",
        tiny,
        "-o",
        home / "slow.json",
        "--prompts",
        home / "two.txt",
        "--steps",
        20,
        "--size",
        32,
        "--timesteps",
        20,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        cwd=home,
        env=environment(home / "workspace"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = home / ".slow.json.partial"
    while not partial.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "workbench jobs resume" in error
    assert 0 < finished_calls(partial) < 20
    only_json(command(*arguments, "--resume", "--json"))
    assert not partial.exists()


def test_compare(command: Run, tiny: Path, home: Path, student: Path):
    (home / "suite.jsonl").write_text(
        '{"prompt": "a red circle"}\n{"prompt": "two blue squares"}\n'
    )
    flags = ("--suite", home / "suite.jsonl", "--steps", 2, "--size", 32, "--guidance", 1)
    result = only_json(command("compare", tiny, student, "-o", home / "cmp", *flags, "--json"))
    assert [m["name"] for m in result["models"]] == ["teacher", "student"]
    assert set(result["models"][1]) >= {"name", "parameters", "ms_per_step", "scores", "retention"}
    assert result["models"][0]["scores"]["ssim"]["overall"] == 1
    assert Path(result["page"]).is_file()
    assert "student" in command("compare", tiny, student, "-o", home / "cmp", *flags).stdout
    assert "at least one student" in one_line(command("compare", tiny))
    assert "scorer 'taste'" in one_line(command("compare", tiny, student, "--scorers", "taste"))
    assert str(home / "cmp") in [c.path for c in Store(home / "workspace").comparisons()]


def test_build_in_another_dtype_and_an_unknown_one(command: Run, plan: Path, tmp_path: Path):
    half, full = (
        only_json(command("build", plan, "-o", tmp_path / dtype, "--dtype", dtype, "--json"))
        for dtype in ("bf16", "fp32")
    )
    assert half["parameters"] == full["parameters"]
    assert half["bytes"] < full["bytes"]
    assert "dtype 'bf17'" in one_line(
        command("build", plan, "-o", tmp_path / "odd", "--dtype", "bf17")
    )


def test_a_student_with_custom_blocks_thin_and_fat(command: Run, tiny: Path, tmp_path: Path):
    stacks = {"transformer_blocks": [{"blocks": [0, 2]}, {"blocks": 3, "stream": "single"}]}
    plan = Plan.parse({"teacher": str(tiny), "family": "qwenimage", "stacks": stacks}, "test").save(
        tmp_path / "plan.yaml"
    )
    thin = only_json(command("build", plan, "-o", tmp_path / "thin", "--json"))
    fat = only_json(command("build", plan, "-o", tmp_path / "fat", "--fat", "--json"))
    assert (thin["stock"], fat["stock"]) == (False, True)
    assert (
        thin["parameters"]
        == only_json(command("info", tmp_path / "thin", "--json"))["parameters"]
        < fat["parameters"]
    )
    assert only_json(command("info", tmp_path / "fat", "--json"))["parameters"] == fat["parameters"]
