"""Benchmarks: prompt files in, the scorers' exact layouts out, their results back as scores.

The files here are made up, in the formats of the published ones; where a copy of those lies beside
this project, they are read too.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.comparison.benchmark_files import SIZE, pictures, prompt_file, write_lines, write_table
from tests.refusals import refused
from workbench import tasks
from workbench.cli.main import run
from workbench.comparison.benchmarks.base import Pictures
from workbench.comparison.benchmarks.table import BENCHMARKS
from workbench.records import Comparison

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "prompts"


def names_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def grey(path: Path) -> int:
    return int(np.asarray(Image.open(path))[0, 0, 0])


def laid_out(name: str, tmp_path: Path) -> tuple[Path, Pictures]:
    given = pictures(name, tmp_path / "given")
    BENCHMARKS[name].write(given, tmp_path / "layout")
    return tmp_path / "layout", given


# --- layouts --------------------------------------------------------------------------------------


LAYOUTS = {
    "geneval2": ["model.json", "model/00000.png", "model/00001.png"],
    "dpg": ["model/0.png", "model/coco3.png"],
    "longtext-en": [f"model/{n}_{k}.png" for n in ("0007", "0012") for k in (1, 2, 3, 4)],
    "longtext-zh": [f"model/0000_{k}.png" for k in (1, 2, 3, 4)],
    "oneig": ["human/model/000.webp", "text/model/000.webp"],
    "parti": ["model.jsonl", "model/00000_0.png"],
    "prompts": ["model.jsonl", "model/00000_0.png", "model/00001_0.png"],
    "unigenbench": [
        *[f"en/model/{n}_{k}.png" for n in (0, 1) for k in range(4)],
        *[f"zh_long/model/0_{k}.png" for k in range(4)],
    ],
    "t2i-compbench": [
        *[f"model/color/samples/a red cup_{n:06}.png" for n in range(10)],
        *[f"model/color/samples/a blue cup_{n:06}.png" for n in range(10, 20)],
        *[f"model/shape/samples/a round cup_{n:06}.png" for n in range(10)],
    ],
    "geneval": [
        *[f"model/{n:05}/metadata.jsonl" for n in range(3)],
        *[f"model/{n:05}/samples/{k:05}.png" for n in range(3) for k in range(4)],
    ],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_lie_where_the_official_scorer_looks(name: str, tmp_path: Path):
    layout, _ = laid_out(name, tmp_path)
    assert names_of(layout) == sorted(LAYOUTS[name])


def test_every_benchmark_with_a_prompt_file_is_tested_here():
    assert {name for name in BENCHMARKS if BENCHMARKS[name].prompts} == set(LAYOUTS)


def test_what_lies_beside_the_pictures_is_what_the_scorers_read(tmp_path: Path):
    layout, given = laid_out("geneval", tmp_path / "one")
    about = json.loads((layout / "model/00001/metadata.jsonl").read_text())
    assert about == {
        "tag": "colors",
        "include": [{"class": "cup", "count": 1}],
        "prompt": "a red cup",
    }
    assert grey(layout / "model/00001/samples/00002.png") == 60
    layout, given = laid_out("geneval2", tmp_path / "two")
    paths = json.loads((layout / "model.json").read_text())
    assert {prompt: grey(Path(path)) for prompt, path in paths.items()} == {
        "two cats": 0,
        "a cup": 10,
    }
    assert [item["prompt"] for item in given.items] == ["two cats", "a cup"]
    layout, given = laid_out("parti", tmp_path / "three")
    about = {"category": "Food & Beverage", "challenge": "Basic"}
    row = {"file": "00000_0.png", "prompt": '"G O" in paint', **about}
    assert json.loads((layout / "model.jsonl").read_text()) == row


@pytest.mark.parametrize(("name", "file"), [("dpg", "coco3.png"), ("oneig", "000.webp")])
def test_a_grid_has_the_four_pictures_row_by_row(name: str, file: str, tmp_path: Path):
    layout, given = laid_out(name, tmp_path)
    target = next(layout.rglob(file)) if name == "dpg" else layout / "text/model/000.webp"
    whole = np.asarray(Image.open(target).convert("RGB"))
    assert whole.shape == (2 * SIZE, 2 * SIZE, 3)
    corners = [int(whole[y, x, 0]) for y in (1, SIZE + 3) for x in (1, SIZE + 3)]
    assert corners == pytest.approx([grey(path) for path in given.of(1)], abs=6)  # WebP loses some


def test_a_second_run_writes_only_what_is_missing_or_older_than_its_pictures(tmp_path: Path):
    layout, given = laid_out("dpg", tmp_path)
    first = (layout / "model/0.png").stat().st_mtime_ns
    (layout / "model/coco3.png").unlink()
    BENCHMARKS["dpg"].write(given, layout)
    assert (layout / "model/0.png").stat().st_mtime_ns == first
    Image.new("RGB", (SIZE, SIZE), (250, 0, 0)).save(given.of(0)[3])
    os.utime(given.of(0)[3])
    BENCHMARKS["dpg"].write(given, layout)
    assert np.asarray(Image.open(layout / "model/0.png"))[-1, -1, 0] == 250


# --- prompt files that are not ---------------------------------------------------------------------


def test_other_files_than_the_benchmarks_are_refused_with_what_is_expected(tmp_path: Path):
    wrong = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "a cat"}])
    for name, missing in [("geneval", "tag"), ("geneval2", "atom_count"), ("dpg", "id")]:
        with refused(found=f"prompts.jsonl line 1 has no {missing}"):
            BENCHMARKS[name].read(wrong)
    table = write_table(tmp_path / "OneIG.csv", [{"category": "Portrait", "id": 1, "prompt": "x"}])
    with refused(expected="prompt_en or prompt_cn"):
        BENCHMARKS["oneig"].read(table)
    with refused(found="OneIG.csv", expected="test_prompts_en_long.csv"):
        BENCHMARKS["unigenbench"].read(table)
    (tmp_path / "color_val.txt").write_text("a cup / a plate\n")
    with refused(found="a cup / a plate", expected="named by it"):
        BENCHMARKS["t2i-compbench"].read(tmp_path / "color_val.txt")
    (tmp_path / "empty").mkdir()
    for name in ("dpg", "unigenbench", "t2i-compbench"):
        with refused(found="has no prompt"):
            BENCHMARKS[name].read(tmp_path / "empty")


def test_prompts_whose_pictures_would_be_one_file_are_refused(tmp_path: Path):
    cat = {"prompt": "a cat", "id": 1, "prompt_id": 1, "text": ["x"], "atom_count": 2}
    twice = write_lines(tmp_path / "twice.jsonl", [{**cat, "category": "sign"}] * 2)
    for name in ("geneval2", "dpg", "longtext-en"):
        with refused(found="prompts 1 and 2 are both", expected="one prompt for each"):
            BENCHMARKS[name].read(twice)
    row = {"category": "Portrait", "id": "000", "prompt_en": "x"}
    with refused(found="prompts 1 and 2 are both human 000"):
        BENCHMARKS["oneig"].read(write_table(tmp_path / "OneIG-Bench.csv", [row, row]))
    row = {"index": 0, "prompt_en": "x"}
    with refused(found="prompts 1 and 2 are both en 0"):
        BENCHMARKS["unigenbench"].read(write_table(tmp_path / "test_prompts_en.csv", [row, row]))


@pytest.mark.parametrize("name", ["../up", "a/b", "C:\\x", "", "a.b"])
def test_ids_that_are_no_names_of_files_are_refused(name: str, tmp_path: Path):
    file = write_lines(tmp_path / "prompts.jsonl", [{"id": name, "prompt": "a cat"}])
    with refused(found="line 1"):
        BENCHMARKS["dpg"].read(file)


def test_values_that_are_no_text_or_number_are_refused_with_their_line(tmp_path: Path):
    sign = {"prompt": "a sign", "category": "sign", "text": ["x"], "prompt_id": 1}
    for change in ({"prompt": ["a"]}, {"prompt": " "}, {"text": "x"}, {"prompt_id": "one"}):
        file = write_lines(tmp_path / "prompts.jsonl", [sign, {**sign, "prompt_id": 2, **change}])
        with refused(found="prompts.jsonl line 2"):
            BENCHMARKS["longtext-en"].read(file)


def test_a_prompt_of_any_script_names_its_picture_to_the_last_byte(tmp_path: Path):
    prompt = "猫" * 80  # 240 bytes
    (tmp_path / "color_val.txt").write_text(prompt, encoding="utf-8")
    items = BENCHMARKS["t2i-compbench"].read(tmp_path / "color_val.txt")
    file = tmp_path / "0.png"
    Image.new("RGB", (SIZE, SIZE)).save(file)
    BENCHMARKS["t2i-compbench"].write(Pictures("model", items, 1, [file]), tmp_path / "layout")
    assert names_of(tmp_path / "layout") == [f"model/color/samples/{prompt}_000000.png"]
    (tmp_path / "color_val.txt").write_text(prompt + "a", encoding="utf-8")
    with refused(expected="at most 240 bytes"):
        BENCHMARKS["t2i-compbench"].read(tmp_path / "color_val.txt")


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("geneval", "geneval.jsonl", 553),
        ("dpg", "dpg_bench.jsonl", 1065),
        ("longtext-en", "longtext_en.jsonl", 160),
        ("longtext-zh", "longtext_zh.jsonl", 160),
    ],
)
def test_the_published_files_are_read(name: str, file: str, count: int):
    if not (PUBLISHED / file).is_file():
        pytest.skip("no copy of the published file is here")
    items = BENCHMARKS[name].read(PUBLISHED / file)
    assert len(items) == count and all(item["prompt"] for item in items)
    if name == "geneval":
        counts = Counter(item["category"] for item in items)
        assert counts["position"] == counts["color_attr"] == 100 and counts["single_object"] == 80
    else:
        assert len({item["id"] for item in items}) == count


# --- the verb -------------------------------------------------------------------------------------

FAST = {"name": "geneval", "sampling_steps": 2, "size": tiny.SIZE, "guidance": 1}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A benchmark's run with two models, once whole and once in two parts and a last run."""
    root = tmp_path_factory.mktemp("benchmark")
    prompts = str(prompt_file("geneval", root))
    models = [
        str(tiny.tiny_qwen_pipeline(root / f"m{seed}", depth=1, seed=seed)) for seed in (0, 1)
    ]
    spec = {**FAST, "models": models, "names": "teacher,student", "prompts": prompts}
    whole = tasks.run("benchmark", {**spec, "out": str(root / "whole")}, root / "workspace")
    parts = {**spec, "out": str(root / "parts")}
    counts = []
    for number in (2, 1):
        part = {**parts, "shard": f"{number}/2"}
        counts.append(tasks.run("benchmark", part, root / "workspace")["pictures"])
    tasks.run("benchmark", parts, root / "workspace")
    return {"root": root, "whole": whole, "counts": counts, "spec": spec}


def test_parts_together_are_the_whole_run_bit_for_bit(sampled: dict[str, Any]):
    assert sampled["counts"] == [8, 16]
    whole, parts = sampled["root"] / "whole" / "layout", sampled["root"] / "parts" / "layout"
    names = names_of(whole)
    assert len(names) == 2 * (3 + 12) and names_of(parts) == names
    for name in names:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    assert sampled["whole"]["layout"] == str(whole) and "MIT" in sampled["whole"]["licence"]


def test_results_become_scores_with_intervals_and_paired_differences(
    sampled: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    root = sampled["root"]
    correct = np.random.default_rng(3).integers(0, 2, (2, 3, 4))
    given = []
    for model, name in enumerate(("teacher", "student")):
        rows = []
        for number in range(3):
            for seed in range(4):
                place = f"{name}/{number:05}/samples/{seed:05}.png"
                rows.append({"filename": place, "correct": bool(correct[model, number, seed])})
        given += ["--results", f"{name}={write_lines(root / f'{name}.jsonl', rows)}"]
    where = ["-o", str(root / "whole"), "--workspace", str(root / "workspace")]
    assert run(["benchmark", "geneval", *given, *where, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    teacher, student = Comparison.load(result["comparison"]).models
    tags = [[row[0].mean(), row[1:].mean()] for row in correct]
    assert teacher.scores["GenEval"].overall == pytest.approx(np.mean(tags[0]))
    assert student.difference["GenEval"].mean == pytest.approx(np.mean(tags[1]) - np.mean(tags[0]))
    assert student.retention["GenEval"] == pytest.approx(np.mean(tags[1]) / np.mean(tags[0]))
    assert "GenEval" in Path(result["page"]).read_text()


def refusal_of(sampled: dict[str, Any], tmp_path: Path, **change: Any) -> Any:
    spec = {key: value for key, value in {**sampled["spec"], **change}.items() if value is not None}
    return tasks.run("benchmark", spec, tmp_path / "workspace")


def test_what_the_verb_refuses_before_it_samples(sampled: dict[str, Any], tmp_path: Path):
    whole = str(sampled["root"] / "whole")
    with refused(found="geneval without --prompts", expected="evaluation_metadata.jsonl"):
        refusal_of(sampled, tmp_path, prompts=None)
    with refused(found="--seeds 3 for dpg", expected="4"):
        refusal_of(sampled, tmp_path, name="dpg", seeds=3)
    with refused(found="--shard 4/3", expected="such as 2/4"):
        refusal_of(sampled, tmp_path, shard="4/3", out=str(tmp_path / "out"))
    with refused(found="--shard without -o"):
        refusal_of(sampled, tmp_path, shard="1/3")
    with refused(found="without a model"):
        refusal_of(sampled, tmp_path, models=[], names=None)
    with refused(found="is a run of geneval", expected="a run of dpg"):
        refusal_of(sampled, tmp_path, name="dpg", models=[], out=whole, results=["teacher=/"])
    with refused(found="--results of nobody", expected="teacher, student"):
        refusal_of(sampled, tmp_path, models=[], out=whole, results=["nobody=/"])
    other = write_lines(tmp_path / "other.jsonl", [{"tag": "colors", "prompt": "a cat"}])
    with refused(found="is a run of geneval with 3 prompts", do="choose another -o"):
        refusal_of(sampled, tmp_path, prompts=str(other), out=whole)
    with refused(found="has no benchmark.json"):
        refusal_of(sampled, tmp_path, models=[], out=str(tmp_path), results=["teacher=/"])
