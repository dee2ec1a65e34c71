"""Benchmarks: prompt files in, the scorers' exact layouts out, their results back as scores.

The files here are made up, in the formats of the published ones; where a copy of those lies beside
this project, they are read too.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.refusals import refused
from workbench import tasks
from workbench.cli.main import run
from workbench.comparison.benchmarks.base import Pictures, Scored
from workbench.comparison.benchmarks.table import BENCHMARKS
from workbench.records import Comparison

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "prompts"
SIZE = 6


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def write_table(path: Path, rows: Sequence[dict[str, Any]], delimiter: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
    return path


def points(*names: str) -> str:
    return json.dumps({"Primary Categories": "Art", "Testpoints": list(names)})


def prompt_file(name: str, folder: Path) -> Path:
    """A small file in the format of the benchmark's own."""
    if name == "geneval":
        rows = [
            {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"},
            {"tag": "colors", "include": [{"class": "cup", "count": 1}], "prompt": "a red cup"},
            {"tag": "colors", "include": [{"class": "cup", "count": 1}], "prompt": "a blue cup"},
        ]
        return write_lines(folder / "evaluation_metadata.jsonl", rows)
    if name == "geneval2":
        rows = [
            {
                "prompt": "two cats",
                "atom_count": 2,
                "vqa_list": [["q", "a"]] * 2,
                "skills": ["count"],
            },
            {"prompt": "a cup", "atom_count": 3, "vqa_list": [["q", "a"]], "skills": ["object"]},
        ]
        return write_lines(folder / "geneval2_data.jsonl", rows)
    if name == "dpg":
        prompts = folder / "prompts"
        prompts.mkdir(parents=True)
        (prompts / "coco3.txt").write_text("A cat\nsits. ")
        (prompts / "0.txt").write_text("A field.")
        return prompts
    if name == "longtext-en":
        rows = [
            {"category": "sign", "prompt": "a sign", "text": ["OPEN", "all day"], "prompt_id": 7},
            {"category": "book", "prompt": "a book", "text": ["The Sea"], "prompt_id": 12},
        ]
        return write_lines(folder / "text_prompts.jsonl", rows)
    if name == "longtext-zh":
        rows = [
            {"category": "sign", "prompt": "招牌", "text": ["每日烘焙", "始于1998"], "prompt_id": 0}
        ]
        return write_lines(folder / "text_prompts_zh.jsonl", rows)
    if name == "oneig":
        rows = [
            {"category": "Portrait", "id": "000", "prompt_en": "a man", "prompt_length": "s"},
            {"category": "Text_Rendering", "id": "000", "prompt_en": "a sign, blue"},
        ]
        return write_table(
            folder / "OneIG-Bench.csv", [{"class": "None", **row} for row in rows][::-1][::-1]
        )
    if name == "parti":
        row = {"Prompt": "a cube", "Category": "Abstract", "Challenge": "Basic", "Note": ""}
        return write_table(folder / "PartiPrompts.tsv", [row], "\t")
    if name == "t2i-compbench":
        (folder / "color_val.txt").write_text("a red cup\na blue cup\n")
        (folder / "shape_val.txt").write_text("a round cup\tnotes\n")
        return folder
    if name == "unigenbench":
        english = [
            {"index": 0, "prompt_en": "a cat", "sub_dims_en": points("Style", "Action - Animal")},
            {
                "index": 1,
                "prompt_en": "a dog",
                "sub_dims_en": points("Action - Animal", "Action - State"),
            },
        ]
        chinese = [{"index": 0, "prompt_zh": "猫", "sub_dims_zh": points("Style")}]
        write_table(folder / "test_prompts_en.csv", english)
        write_table(folder / "test_prompts_zh_long.csv", chinese)
        return folder
    (folder / "mine.txt").write_text("a cat\na dog\n")
    return folder / "mine.txt"


def pictures(name: str, folder: Path) -> Pictures:
    """Pictures of which each has its own grey, with the prompts of the made-up file."""
    source = folder / "source"
    source.mkdir(parents=True)
    row = BENCHMARKS[name]
    items = row.read(prompt_file(name, source))
    files = []
    for number in range(len(items) * row.seeds):
        file = folder / f"{number:04}.png"
        Image.new("RGB", (SIZE, SIZE), (10 * number, 0, 0)).save(file)
        files.append(file)
    return Pictures("model", items, row.seeds, files)


def names_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def grey(path: Path) -> int:
    return np.asarray(Image.open(path))[0, 0, 0]


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


@pytest.mark.parametrize(("name", "file"), [("dpg", "coco3.png"), ("oneig", "000.webp")])
def test_a_grid_has_the_four_pictures_row_by_row(name: str, file: str, tmp_path: Path):
    layout, given = laid_out(name, tmp_path)
    target = next(layout.rglob(file)) if name == "dpg" else layout / "text/model/000.webp"
    whole = np.asarray(Image.open(target).convert("RGB"))
    assert whole.shape == (2 * SIZE, 2 * SIZE, 3)
    corners = [whole[y, x, 0] for y in (1, SIZE + 3) for x in (1, SIZE + 3)]
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


# --- results --------------------------------------------------------------------------------------


def run_of(name: str, tmp_path: Path) -> Scored:
    tmp_path.mkdir(parents=True, exist_ok=True)
    row = BENCHMARKS[name]
    return Scored("model", row.read(prompt_file(name, tmp_path)), row.seeds)


def test_genevals_score_is_the_mean_of_its_tags(tmp_path: Path):
    scored = run_of("geneval", tmp_path)
    correct = np.random.default_rng(0).integers(0, 2, (3, 4))
    rows = []
    for number in (2, 0, 1):  # its program lists folders in any order
        for seed in (3, 0, 1, 2):
            name = f"layout/model/{number:05}/samples/{seed:05}.png"
            rows.append({"filename": name, "correct": bool(correct[number, seed]), "tag": "x"})
    file = write_lines(tmp_path / "results.jsonl", rows)
    score = BENCHMARKS["geneval"].score([file], scored)["GenEval"].score()
    expected = {"single_object": correct[0].mean(), "colors": correct[1:].mean()}
    assert score.by_category == pytest.approx(expected)
    assert score.overall == pytest.approx(np.mean(list(expected.values())))
    assert score.low is not None and score.low <= score.overall <= score.high
    assert score.per_image == correct.ravel().tolist()


def test_soft_tifa_is_averaged_over_prompts_by_both_means(tmp_path: Path):
    scored = run_of("geneval2", tmp_path)
    file = tmp_path / "score_lists.json"
    file.write_text(json.dumps([[0.5, 0.25], [1.0, 0.0, 0.9]]))
    found = BENCHMARKS["geneval2"].score([file], scored)
    geometric = [math.sqrt(0.125), (1e-12 * 0.9) ** (1 / 3)]
    assert found["Soft-TIFA GM"].score().overall == pytest.approx(np.mean(geometric))
    arithmetic = found["Soft-TIFA AM"].score()
    assert arithmetic.overall == pytest.approx((0.375 + 1.9 / 3) / 2)
    assert arithmetic.by_category == pytest.approx({"2 atoms": 0.375, "3 atoms": 1.9 / 3})


def test_dpgs_lines_are_read_quarter_by_quarter(tmp_path: Path):
    scored = run_of("dpg", tmp_path)
    file = tmp_path / "results.txt"
    lines = ["/x, y/coco3.png, 1.0, 0.5, 0.5, 0.0, 0.5", "/x, y/0.png, 1.0, 1.0, 0.8, 1.0, 0.95"]
    file.write_text("\n".join([*lines, "Model: model", "L1 category scores:", "\tentity: 91.2"]))
    score = BENCHMARKS["dpg"].score([file], scored)["DPG-Bench"].score()
    assert score.overall == pytest.approx((0.5 + 0.95) / 2)
    assert score.per_image == [1.0, 1.0, 0.8, 1.0, 1.0, 0.5, 0.5, 0.0]  # "0" comes before "coco3"


def test_longtexts_score_is_words_read_of_words_asked_for(tmp_path: Path):
    scored = run_of("longtext-en", tmp_path)
    read = {7: "open All, all days", 12: "sea"}  # 2 of 3 words, 1 of 2
    rows = []
    for number, text in read.items():
        for seed in range(1, 5):
            image = f"/layout/model/{number:04}_{seed}.png"
            rows.append({"image": image, "ocr_gt": [], "ocr_results": text if seed < 4 else ""})
    file = write_lines(tmp_path / "results_chunk0.jsonl", rows)
    score = BENCHMARKS["longtext-en"].score([file], scored)["LongText"].score()
    assert score.overall == pytest.approx((3 * 2 + 3 * 1) / (4 * 3 + 4 * 2))
    assert score.by_category == pytest.approx({"sign": 0.75 * 2 / 3, "book": 0.75 * 1 / 2})
    assert score.low <= score.overall <= score.high
    scored = run_of("longtext-zh", tmp_path / "zh")
    rows = [{"image": f"0000_{k}.png", "ocr_results": "每日 烘1989"} for k in range(1, 5)]
    file = write_lines(tmp_path / "results_chunk1.jsonl", rows)
    score = BENCHMARKS["longtext-zh"].score([file], scored)["LongText"].score()
    assert score.overall == pytest.approx(7 / 10)  # three characters and the digits 1, 9, 8, 9


def test_compbenchs_answers_are_numbered_through_a_category(tmp_path: Path):
    scored = run_of("t2i-compbench", tmp_path / "prompts")
    rng = np.random.default_rng(1)
    answers = {"color": rng.random(20), "shape": rng.random(10)}
    for category, values in answers.items():
        place = tmp_path / "model" / category / "annotation_blip"
        place.mkdir(parents=True)
        rows = [{"question_id": n, "answer": f"{value:.4f}"} for n, value in enumerate(values)]
        (place / "vqa_result.json").write_text(json.dumps(rows[::-1]))
    score = BENCHMARKS["t2i-compbench"].score([tmp_path / "model"], scored)["T2I-CompBench"].score()
    means = {category: values.mean() for category, values in answers.items()}
    assert score.by_category == pytest.approx(means, abs=1e-4)
    assert score.overall == pytest.approx(np.mean(list(means.values())), abs=1e-4)


def test_unigens_dimensions_are_shares_of_all_their_checkpoints(tmp_path: Path):
    scored = run_of("unigenbench", tmp_path)
    rng = np.random.default_rng(2)
    sums: dict[str, list[int]] = {}
    per_picture: list[list[float]] = []
    files: dict[str, list[dict[str, Any]]] = {"en": [], "zh_long": []}
    for item in scored.items:
        means = []
        for seed in range(4):
            scores = rng.integers(0, 2, len(item["testpoints"])).tolist()
            means.append(float(np.mean(scores)))
            for point, score in zip(item["testpoints"], scores, strict=True):
                sums.setdefault(point.split("-")[0].strip(), []).append(score)
            text = json.dumps({"testpoint": item["testpoints"], "score": scores})
            picture = f"layout/{item['split']}/model/{item['id']}_{seed}.png"
            files[item["split"]].append(
                {"index": item["id"], "result_json": text, "img_path": picture}
            )
        per_picture.append(means)
    paths = [write_table(tmp_path / f"model_{name}.csv", rows) for name, rows in files.items()]
    score = BENCHMARKS["unigenbench"].score(paths, scored)["UniGenBench"].score()
    assert score.by_category == pytest.approx({name: np.mean(row) for name, row in sums.items()})
    assert score.overall == pytest.approx(np.mean(per_picture))
    low, high = score.interval("Action")
    assert low <= score.by_category["Action"] <= high


def test_oneigs_tables_of_models_and_of_prompts(tmp_path: Path):
    scored = run_of("oneig", tmp_path / "prompts")
    tables = {
        "text_score_EN_2026.csv": "ED,CR,WAC,text score\nother,9,0,0,0\nmodel,12.5,0.25,0.75,0.9766\n",
        "style_score_EN_2026.csv": "style\nmodel,0.3\n",
        "alignment_prompt_score_EN_2026.csv": "model,other\nhuman_000,0.5,1\ntext_000,,1\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text("," + text)
    found = BENCHMARKS["oneig"].score([tmp_path], scored)
    text = found["OneIG text"].score()
    assert (text.overall, text.low) == (0.9766, None)
    assert found["OneIG style"].score().overall == 0.3
    alignment = found["OneIG alignment"].score()
    assert (alignment.overall, alignment.per_image) == (0.5, None)
    with refused(found="no row missing"):
        BENCHMARKS["oneig"].score(
            [tmp_path / "style_score_EN_2026.csv"], Scored("missing", scored.items, 4)
        )


def test_results_that_lack_pictures_or_are_of_something_else_are_refused(tmp_path: Path):
    scored = run_of("geneval", tmp_path)
    row = {"filename": "model/00000/samples/00001.png", "correct": True}
    file = write_lines(tmp_path / "results.jsonl", [row])
    with refused(found="no result for 11 of 12 pictures, the first: picture 0 of prompt 0"):
        BENCHMARKS["geneval"].score([file], scored)
    file = write_lines(tmp_path / "results.jsonl", [{**row, "filename": "a/cat.png"}])
    with refused(found="the picture name"):
        BENCHMARKS["geneval"].score([file], scored)
    lists = tmp_path / "lists.json"
    lists.write_text("[[1.0]]")
    with refused(found="1 prompts", expected="each of 2"):
        BENCHMARKS["geneval2"].score([lists], run_of("geneval2", tmp_path))
    lists.write_text('{"scores": [1, 2, null]}')
    with refused(found="3 scores", expected="with 2 numbers"):
        BENCHMARKS["prompts"].score([lists], run_of("prompts", tmp_path))


# --- the verb -------------------------------------------------------------------------------------

FAST = {"name": "geneval", "sampling_steps": 1, "size": tiny.SIZE, "guidance": 1}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A benchmark's run with two models, once whole and once in three parts and a last run."""
    root = tmp_path_factory.mktemp("benchmark")
    prompts = str(prompt_file("geneval", root))
    models = [
        str(tiny.tiny_qwen_pipeline(root / f"m{seed}", depth=1, seed=seed)) for seed in (0, 1)
    ]
    spec = {**FAST, "models": models, "names": "teacher,student", "prompts": prompts}
    whole = tasks.run("benchmark", {**spec, "out": str(root / "whole")}, root / "workspace")
    parts = {**spec, "out": str(root / "parts")}
    counts = []
    for number in (3, 1, 2):
        part = {**parts, "shard": f"{number}/3"}
        counts.append(tasks.run("benchmark", part, root / "workspace")["pictures"])
    tasks.run("benchmark", parts, root / "workspace")
    return {"root": root, "whole": whole, "counts": counts, "spec": spec}


def test_parts_together_are_the_whole_run_bit_for_bit(sampled: dict[str, Any]):
    assert sampled["counts"] == [8, 8, 8]
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
    with refused(found="has no benchmark.json"):
        refusal_of(sampled, tmp_path, models=[], out=str(tmp_path), results=["teacher=/"])
