"""`--print ENGINE`: a file for each engine, whose command gives the very same spec again."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from workbench.cli.main import run
from workbench.cli.words import words_of
from workbench.plugins import registry
from workbench.records import BadInput, yamlfile
from workbench.specs import VerbSpec, parse_spec
from workbench.workspace.cluster.settings import ClusterSettings, settings_of
from workbench.workspace.cluster.table import ENGINES, Order

SPECS = [
    (
        "profile",
        {"teacher": "demo", "out": "/w/map.json", "edits": ["drop", "drop:text.mlp"], "seeds": 2},
    ),
    (
        "plan",
        {"teacher": "demo", "rule": "amber", "keep": {"blocks": 12, "more": 3}, "protect": [0, 1]},
    ),
    ("plan", {"teacher": "demo", "rule": "uniform", "keep": 12, "parts": False}),
    ("build", {"plan": "/w/plan.yaml", "out": "/w/a b", "fat": True}),
    (
        "distill",
        {"student": "/w/s", "recipe": "koala", "steps": 5, "out": "/w/it's", "resume": True},
    ),
    ("compare", {"models": ["demo", "/w/s"], "out": "/w/cmp", "size": "64x32"}),
    ("reproduce", {"table": "amber", "only": ["amber, gain", "demo"], "out": "/w/r"}),
]


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> VerbSpec:
    """The spec that the command line makes of words."""
    seen = []

    def catch(name, spec, options, printer):
        seen.append(spec)

    monkeypatch.setattr("workbench.cli.commands.run_verb", catch)
    assert run(words) == 0
    [spec] = seen
    return spec


@pytest.mark.parametrize(("verb", "data"), SPECS)
def test_a_spec_as_words_is_read_as_the_same_spec(verb: str, data: dict, monkeypatch):
    spec = parse_spec(verb, data)
    again = parsed(words_of(verb, spec), monkeypatch)
    if "resume" in type(spec).model_fields:
        spec = spec.model_copy(update={"resume": True})
    assert again == spec


def text_of(engine: str, command: list[str], **settings) -> str:
    asked = ClusterSettings(engine=engine, **settings)
    return ENGINES[engine].file(Order("work", command, asked, "cuda"))


@pytest.mark.parametrize("engine", registry("engine").names())
def test_every_engine_writes_a_file_with_the_setup_before_the_command(engine: str):
    text = text_of(engine, ["python", "a file.py"], setup="module load cuda", gpus=2, memory=64)
    assert text.index("module load cuda") < text.index("a file.py")


def test_the_batch_script_passes_the_signal_on_and_asks_for_another_turn(tmp_path: Path):
    """Run by bash, with a job that leaves with 75 on SIGUSR1, and a scontrol that notes its words."""
    job = "import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75)); "
    job += "print('begun', flush=True); time.sleep(30)"
    script = tmp_path / "work.sh"
    script.write_text(text_of("slurm", ["python3", "-c", job]))
    control = tmp_path / "scontrol"
    control.write_text(f"#!/bin/sh\necho $* > {tmp_path}/said\n")
    control.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    process = subprocess.Popen(["bash", script], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(10)
    assert process.wait(20) == 0
    assert (tmp_path / "said").read_text() == "requeue 7\n"
    process.stdout.close()


@pytest.mark.parametrize(("code", "turns", "end"), [(0, 1, 0), (75, 3, 75), (3, 1, 3)])
def test_the_task_of_dstack_goes_on_while_the_job_asks_for_it(
    code: int, turns: int, end: int, tmp_path: Path
):
    """Run by bash: the job asks for two more turns, and is then ended from outside."""
    job = f"echo turn >> {tmp_path}/turns; [ $(wc -l < {tmp_path}/turns) -ge 3 ] && kill $PPID; exit {code}"
    task = yamlfile.parse(text_of("dstack", ["bash", "-c", job]))
    result = subprocess.run(["bash", "-c", "\n".join(task["commands"])], check=False)
    assert len((tmp_path / "turns").read_text().splitlines()) == turns
    assert result.returncode in (end, -15)


def test_sky_recovers_on_the_exit_code_that_means_go_on():
    task = yamlfile.parse(text_of("sky", ["python", "x"], options={"gpu": "A100"}, gpus=2))
    assert task["resources"]["job_recovery"] == {"recover_on_exit_codes": [75]}
    assert task["resources"]["accelerators"] == "A100:2"
    assert shlex.split(task["run"]) == ["python", "x"]


def test_an_unknown_engine_is_refused_with_the_names_of_all(capsys):
    assert run(["info", "demo", "--print", "pbs"]) == 2
    assert "slurm" in capsys.readouterr().err
    with pytest.raises(BadInput, match="slurm, sky, dstack, ray"):
        settings_of("pbs", Path("/nowhere"))


def test_settings_come_from_the_workspace_or_a_file(tmp_path: Path):
    (tmp_path / "slurm.yaml").write_text("partition: a\nsetup: |\n  module load x\n")
    assert settings_of("slurm", tmp_path).partition == "a"
    assert settings_of(str(tmp_path / "slurm.yaml"), tmp_path).setup == "module load x\n"
    (tmp_path / "slurm.yaml").write_text("partitoin: a\n")
    with pytest.raises(BadInput, match="unknown key partitoin"):
        settings_of("slurm", tmp_path)


def test_print_prints_the_file_alone(tmp_path: Path, capsys):
    words = ["build", str(tmp_path / "p.yaml"), "-o", "out", "--print", "slurm", "--json"]
    assert run([*words, "--workspace", str(tmp_path)]) == 0
    text = json.loads(capsys.readouterr().out)["file"]
    assert text.startswith("#!/bin/bash")
    assert f"build {tmp_path}/p.yaml" in text
    assert not (tmp_path / "jobs").exists()
