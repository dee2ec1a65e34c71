"""profile and import-map as a person types them: metrics, recorded inputs, several processes,
kills, and every kind of bad input.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_families import family_inputs, family_model
from workbench import models
from workbench.models import Call
from workbench.records import SensitivityMap, Teacher
from workbench.sensitivity.partial import finished_calls
from workbench.tasks.import_map import SD35_LARGE_TURBO
from workbench.workspace.store import Store

from .conftest import MAP_KEYS, Run, environment, one_line, only_json

FAST = ("--steps", 2, "--size", 32, "--timesteps", 2)
REAL = (
    Path(__file__).resolve().parents[3] / "shared" / "data" / "sd35_large_turbo_hpsv2_ablation.json"
)


@pytest.fixture(scope="module")
def command(command: Run, home: Path) -> Run:
    """In a workspace of its own: many of these jobs are meant to fail."""
    return lambda *arguments: command(*arguments, "--workspace", home / "measuring")


@pytest.fixture(scope="module")
def prompts(home: Path) -> Path:
    (home / "six.txt").write_text(
        "\n".join(
            [
                "a red circle",
                "a blue square",
                "a green text",
                "two red square",
                "a text",
                "a circle",
            ]
        )
    )
    return home / "six.txt"


@pytest.fixture(scope="module")
def table(home: Path) -> Path:
    """A table as HierarchicalPrune's, with whole blocks too, of all 38 blocks."""
    values = {
        f"{block}<tab>{part}": 20 + (7 * block + 3 * len(part)) % 10
        for block in range(38)
        for part in ("attn", "ff", "ff_context")
    }
    (home / "table.json").write_text(
        json.dumps({**values, **{str(block): 15 + (11 * block) % 14 for block in range(38)}})
    )
    return home / "table.json"


# --- metrics --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "flags", "rows"),
    [
        (
            "prediction",
            ("--edits", "drop,merge,single,int4,drop:text.mlp"),
            2 * (4 + 3 + 4 + 4 + 4),
        ),
        ("influence", (), 2 * 4),
        ("cka", (), 10),
        ("image", ("--scorer", "psnr"), 4),
        ("image", ("--edits", "drop:mlp,int4"), 8),
        ("recovery", ("--batch", 2, "--train-steps", 2, "--longest", 3), 2 * 2 * 5),
    ],
)
def test_every_metric_makes_a_map(
    command: Run,
    tiny: Path,
    home: Path,
    prompts: Path,
    metric: str,
    flags: tuple[str, ...],
    rows: int,
):
    done = command(
        "profile",
        tiny,
        "-o",
        home / "metric.json",
        "--metric",
        metric,
        *flags,
        "--prompts",
        prompts,
        *FAST,
        "--json",
    )
    result = only_json(done)
    assert (result["metric"], len(result["rows"]), result["direction"][:9]) == (
        metric,
        rows,
        "higher = ",
    )
    record = SensitivityMap.load(result["map"])
    assert (
        record.fingerprint == models.describe(tiny, "x").fingerprint
        and record.measured["samples"] == 6
    )
    assert (
        len(record.measured["prompts_hash"]) == 12
        and record.measured["prompts"][0] == "a red circle"
    )
    assert (record.timesteps == []) == (metric in ("cka", "image"))
    if metric == "recovery":
        assert (
            record.edits == ["zero-shot", "recovered"]
            and record.measured["held_out"] == 2
            and len(record.measured["shapes"]) == 5
        )
        assert "estimate: about " in done.stderr and set(result["stability"]) == set(record.edits)
    if metric in ("prediction", "influence"):
        assert result["estimate"]["block_evaluations"] == result["block_evaluations"]
        assert result["estimate"]["memory_bytes"] > 0 and result["estimate"]["seconds"] > 0
        assert "\nsampling: 2 steps, guidance 4, 32x32 pixels" in done.stderr
        assert "estimate: about " in done.stderr and "block forwards" in done.stderr
        assert set(result["stability"]) == set(record.edits) - {"merge"} | (
            {"merge"} & set(record.edits)
        )
        assert result["trust"]


def test_prompts_are_added_until_the_order_is_stable(command: Run, tiny: Path, home: Path):
    colors = ("red", "blue", "green", "red blue", "green blue")
    shapes = ("circle", "square", "text", "image", "word", "object")
    prompts = [
        f"{count} {color} {shape}" for count in ("a", "two") for color in colors for shape in shapes
    ]
    (home / "many.txt").write_text("\n".join(prompts))
    flags = ("--prompts", home / "many.txt", "--edits", "drop", "--batch", 6, *FAST, "--json")
    result = only_json(
        command("profile", tiny, "-o", home / "stable.json", "--until-stable", *flags)
    )
    record = SensitivityMap.load(home / "stable.json")
    used = record.measured["samples"]
    assert used == len(record.measured["prompts"]) and used % 6 == 0
    assert (record.measured["stability"]["drop"]["stable"] and 6 <= used < 60) or used == 60
    assert result["stability"]["drop"]["prompts"] == used


def test_a_race_measures_settled_blocks_no_more(command: Run, tiny: Path, home: Path):
    """The map says for which blocks it is settled; the order of the prompts is always the same."""
    words = ("circle", "square", "text", "image", "word", "object")
    prompts = [f"{count} {word}" for count in ("a", "two") for word in words]
    (home / "race.txt").write_text("\n".join(prompts))
    flags = ("--prompts", home / "race.txt", "--edits", "drop", "--batch", 6, *FAST, "--json")
    result = only_json(command("profile", tiny, "-o", home / "race.json", "--race", 2, *flags))
    record = SensitivityMap.load(home / "race.json")
    race = record.races["drop"]
    blocks = {(row.stack, row.block) for row in record.rows}
    assert len(race.lowest) == 2 and race.blocks == len(blocks)
    assert result["race"] == record.measured["race"] and result["stability"] is None
    assert set(record.measured["prompts"]) <= set(prompts)
    assert record.measured["prompts"] != prompts[: len(record.measured["prompts"])]
    for row in record.rows:
        undecided = (row.stack, row.block) in race.undecided
        assert row.samples == record.measured["samples"] if undecided else row.samples >= 6


# --- recorded inputs ------------------------------------------------------------------------------


def test_recorded_inputs_of_a_family_whose_sampler_is_not_driven(command: Run, home: Path):
    """A transformer folder alone, without a pipeline."""
    family_model("wan").save_pretrained(home / "wan")
    calls = [
        Call(family_inputs("wan", seed=seed, timestep=t), t, seed, 2, "cond")
        for seed in range(3)
        for t in (900.0, 100.0)
    ]
    models.save_inputs(calls, home / "inputs.safetensors")
    flags = ("--inputs", home / "inputs.safetensors", "--edits", "drop,merge,int4,drop:cross")
    result = only_json(command("profile", home / "wan", "-o", home / "wan.json", *flags, "--json"))
    record = SensitivityMap.load(home / "wan.json")
    assert (record.family, record.timesteps, len(result["rows"])) == (
        "wan",
        [900.0, 100.0],
        2 * (3 + 2 + 3 + 3),
    )
    assert (
        record.measured["inputs"] == "inputs.safetensors"
        and len(record.measured["inputs_hash"]) == 12
    )
    assert record.measured["samples"] == 6
    assert "inputs of a WanTransformer3DModel" in one_line(
        command("profile", home / "wan", "--inputs", recorded(home, "dit"))
    )
    assert "no recorded inputs" in one_line(
        command("profile", home / "wan", "--inputs", home / "wan" / "config.json")
    )
    assert (
        "samples yourself" in (line := one_line(command("profile", home / "wan", *FAST)))
        or "no model_index.json" in line
    )
    assert "--inputs with --prompts" in one_line(
        command("profile", home / "wan", *flags, "--prompts", home / "wan" / "config.json")
    )


def recorded(home: Path, family: str) -> Path:
    return models.save_inputs(
        [Call(family_inputs(family), 500.0, 0, 2, "cond")], home / f"{family}.safetensors"
    )


# --- scale ----------------------------------------------------------------------------------------


def rows_of(path: Path) -> dict[tuple, tuple[float, float | None]]:
    return {
        (r.stack, r.block, r.edit, r.timestep): (r.score, r.stderr)
        for r in SensitivityMap.load(path).rows
    }


def test_a_scan_that_is_killed_goes_on(command: Run, tiny: Path, home: Path, prompts: Path):
    """kill -9 of a real child; what it had finished is not measured again."""
    how = (
        "--prompts",
        prompts,
        "--steps",
        20,
        "--size",
        32,
        "--timesteps",
        10,
        "--batch",
        2,
        "--edits",
        "drop,merge,int4",
    )
    arguments = ["profile", tiny, "-o", home / "killed.json", *how]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        cwd=home,
        env=environment(home / "measuring"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    partial = home / ".killed.json.partial"
    while not partial.exists() or finished_calls(partial) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    held = finished_calls(partial)
    assert 3 <= held < 30 and not (home / "killed.json").exists()
    resumed = only_json(command(*arguments, "--resume", "--json"))
    assert resumed["estimate"]["calls"] == 30 - held and not partial.exists()
    whole = only_json(command("profile", tiny, "-o", home / "whole.json", *how, "--json"))
    assert rows_of(home / "killed.json") == rows_of(home / "whole.json")
    assert resumed["block_evaluations"] == whole["block_evaluations"]


def test_two_processes_make_the_map_of_one(command: Run, tiny: Path, home: Path, prompts: Path):
    how = ("--prompts", prompts, *FAST, "--batch", 2, "--edits", "drop,merge,int4", "--json")
    split = only_json(command("profile", tiny, "-o", home / "split.json", "--processes", 2, *how))
    alone = only_json(command("profile", tiny, "-o", home / "alone.json", *how))
    one, other = rows_of(home / "alone.json"), rows_of(home / "split.json")
    assert list(one) == list(other)
    for key, (score, stderr) in one.items():
        assert other[key][0] == pytest.approx(score, rel=1e-6) and other[key][1] == pytest.approx(
            stderr, rel=1e-5
        )
    assert split["processes"] == 2 and split["block_evaluations"] == alone["block_evaluations"]
    assert split["stability"] == alone["stability"] and not list(home.glob(".split.json*"))


# --- import-map -----------------------------------------------------------------------------------


def test_a_published_table_serves_on_a_machine_without_the_model(
    command: Run, home: Path, table: Path
):
    result = only_json(
        command("import-map", table, "-o", home / "sd35.json", "--baseline", 31, "--json")
    )
    assert set(result) >= MAP_KEYS
    assert (result["direction"], result["flagged"], len(result["rows"])) == (
        "higher = keep",
        4,
        38 * 4,
    )
    assert next(
        row["score"] for row in result["rows"] if row["edit"] == "drop" and row["block"] == 2
    ) == 31 - (15 + 22 % 14)
    store = Store(home / "measuring")
    assert SD35_LARGE_TURBO in [row.teacher for row in store.teachers()]
    assert str(home / "sd35.json") in [row.path for row in store.maps()]
    planned = only_json(
        command(
            "plan",
            SD35_LARGE_TURBO,
            "--rule",
            "amber",
            "--keep",
            28,
            "-o",
            home / "sd35.yaml",
            "--json",
        )
    )
    assert planned["depth"] == {"transformer_blocks": 28}, (
        "the workspace's map of this teacher is found by its name"
    )
    assert (
        only_json(command("plan-info", home / "sd35.yaml", "--json"))["teacher_parameters"]
        == planned["teacher_parameters"]
    )
    assert only_json(command("info", SD35_LARGE_TURBO, "--json"))["stacks"][0]["depth"] == 38


@pytest.mark.skipif(not REAL.is_file(), reason="the published table is not at hand")
def test_the_published_table_is_read(command: Run, home: Path):
    result = only_json(command("import-map", REAL, "-o", home / "published.json", "--json"))
    assert (len(result["rows"]), result["flagged"], result["metric"]) == (190, 5, "hpsv2")


def test_another_file_is_one_line(command: Run, home: Path):
    (home / "list.json").write_text("[1]")
    assert "holds a list" in one_line(command("import-map", home / "list.json"))
    assert "does not exist" in one_line(command("import-map", home / "nothing.json"))
    (home / "latin.json").write_bytes(b'{"caf\xe9": 1}')
    assert "not UTF-8" in one_line(command("import-map", home / "latin.json"))


# --- bad input ------------------------------------------------------------------------------------


def test_a_teacher_of_an_unknown_family_is_one_line(command: Run, home: Path):
    (home / "strange.json").write_text('{"_class_name": "HunyuanDiT2DModel"}')
    assert "skip" in one_line(command("info", home / "strange.json")), "the reason"
    (home / "unheard.json").write_text('{"_class_name": "FancyTransformer2DModel"}')
    line = one_line(command("info", home / "unheard.json"))
    assert "FancyTransformer2DModel" in line and "add-a-family" in line


def test_a_map_of_another_teacher_is_one_line(command: Run, tiny: Path, home: Path, prompts: Path):
    """By name and fingerprint."""
    record = SensitivityMap(
        teacher="/models/other",
        fingerprint="abcdefabcdef",
        family="qwenimage",
        rows=[
            {"stack": "transformer_blocks", "block": b, "edit": "drop", "score": b}
            for b in range(4)
        ],
    )
    record.save(home / "other.json")
    line = one_line(
        command("plan", tiny, "--rule", "amber", "--keep", 2, "--sensitivity", home / "other.json")
    )
    here = models.describe(tiny, "x").fingerprint
    assert "/models/other" in line and "abcdefabcdef" in line and here in line


def test_predictions_that_are_not_finite_are_one_line(
    command: Run, tiny: Path, home: Path, prompts: Path
):
    """The block and the timestep are named."""
    shutil.copytree(tiny, home / "nan")
    [file] = (home / "nan" / "transformer").glob("*.safetensors")
    tensors = load_file(file)
    tensors["transformer_blocks.2.img_mlp.net.2.bias"][:] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    line = one_line(
        command("profile", home / "nan", "-o", home / "nan.json", "--prompts", prompts, *FAST)
    )
    assert "from transformer_blocks block 2 on" in line and "at timestep 1000" in line


def test_a_broken_safetensors_header_is_one_line(command: Run, tiny: Path, home: Path):
    shutil.copytree(tiny, home / "header")
    [file] = (home / "header" / "transformer").glob("*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[8:12] = b"!!!!"
    file.write_bytes(raw)
    for verb in (("info",), ("profile",), ("plan", "--keep", "2")):
        assert "broken header" in one_line(command(verb[0], home / "header", *verb[1:]))


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--metric", "taste"), "one of prediction, influence, taylor, cka, recovery, image"),
        (("--edits", "melt"), "edit 'melt'"),
        (("--metric", "cka", "--edits", "drop"), "makes none"),
        (("--metric", "image", "--scorer", "taste"), "scorer 'taste'"),
        (("--scorer", "ssim"), "--metric image"),
        (("--until-stable", "--processes", "2"), "--until-stable with --processes"),
        (("--until-stable", "--metric", "cka"), "--until-stable with metric cka"),
        (("--race", 2, "--processes", "2"), "--race with --processes"),
        (("--race", 2, "--metric", "taylor"), "--race with metric taylor; expected one of pred"),
        (("--race", 99), "the 99 lowest of"),
        (("--longest", 3), "--longest with metric prediction; expected --metric recovery"),
        (("--metric", "recovery", "--edits", "drop"), "makes none"),
        (("--metric", "image", "--processes", "2"), "--processes with"),
        (("--metric", "image", "--scorer", "scenes"), "items with scene"),
        (("--timestep-weight", "odd"), "timestep weighting 'odd'"),
        (("--inputs", "none.safetensors"), "none.safetensors"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(
    command: Run, tiny: Path, flags: tuple[str, ...], word: str
):
    assert word in one_line(command("profile", tiny, *flags, *FAST))


def test_teacher_record_of_the_import_can_be_read_by_the_app(command: Run, home: Path, table: Path):
    only_json(command("import-map", table, "-o", home / "sd35.json", "--json"))
    row = next(r for r in Store(home / "measuring").teachers() if r.teacher == SD35_LARGE_TURBO)
    assert Teacher.load(row.path).stacks[0].depth == 38
