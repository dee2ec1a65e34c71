"""Results of the benchmarks' own scorers become scores. The files are made up, in their formats."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.comparison.benchmark_files import run_of, write_lines, write_table
from tests.refusals import refused
from workbench.comparison.benchmarks.base import Scored
from workbench.comparison.benchmarks.table import BENCHMARKS


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


FOLDERS = {"color": "annotation_blip", "shape": "labels/annotation_obj_detection_2d"}


def test_compbenchs_answers_are_numbered_through_a_category(tmp_path: Path):
    scored = run_of("t2i-compbench", tmp_path / "prompts")
    rng = np.random.default_rng(1)
    answers = {"color": rng.random(20), "shape": rng.random(10)}
    for category, values in answers.items():
        place = tmp_path / "model" / category / FOLDERS[category]
        place.mkdir(parents=True)
        rows = [{"question_id": n, "answer": f"{value:.4f}"} for n, value in enumerate(values)]
        (place / "vqa_result.json").write_text(json.dumps(rows[::-1]))
    score = BENCHMARKS["t2i-compbench"].score([tmp_path / "model"], scored)["T2I-CompBench"].score()
    means = {category: values.mean() for category, values in answers.items()}
    assert score.by_category == pytest.approx(means, abs=1e-4)
    assert score.overall == pytest.approx(np.mean(list(means.values())), abs=1e-4)


def test_of_compbenchs_complex_prompts_the_three_in_one_score_counts(tmp_path: Path):
    run = Scored("model", [{"prompt": "a red cup", "category": "complex"}], 1)
    for number, name in enumerate(("3_in_1", "blip", "clip")):
        place = tmp_path / "model/complex" / f"annotation_{name}"
        place.mkdir(parents=True)
        row = {"question_id": 0, "answer": number + 0.5}
        (place / "vqa_result.json").write_text(json.dumps([row]))
    score = BENCHMARKS["t2i-compbench"].score
    assert score([tmp_path / "model"], run)["T2I-CompBench"].score().overall == 0.5
    (tmp_path / "model/complex/annotation_3_in_1/vqa_result.json").unlink()
    with refused(found="annotation_blip and annotation_clip both score complex"):
        score([tmp_path / "model/complex"], run)


TESTPOINTS = [  # of the prompts of the made-up file, and their dimensions
    (["Style", "Action - Animal"], ["Style", "Action"]),
    (["Action - Animal", "Action - Animal"], ["Action", "Action"]),
    (["属性-数量"], ["属性"]),
]


def test_unigens_dimensions_are_shares_of_all_their_checkpoints(tmp_path: Path):
    scored = run_of("unigenbench", tmp_path)
    rng = np.random.default_rng(2)
    sums: dict[str, list[int]] = {}
    per_picture: list[list[float]] = []
    files: dict[str, list[dict[str, Any]]] = {"en": [], "zh_long": []}
    for item, (testpoints, dimensions) in zip(scored.items, TESTPOINTS, strict=True):
        means = []
        for seed in range(4):
            scores = rng.integers(0, 2, len(testpoints)).tolist()
            means.append(float(np.mean(scores)))
            for dimension, score in zip(dimensions, scores, strict=True):
                sums.setdefault(dimension, []).append(score)
            text = json.dumps({"testpoint": testpoints, "score": scores}, indent=4)
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
        "diversity_score_EN_2026.csv": "anime,human,total average\nmodel,0.5,0.7,0.66\n",
        "alignment_prompt_score_EN_2026.csv": "model,other\nhuman_000,0.5,1\ntext_000,,1\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text("," + text)
    found = BENCHMARKS["oneig"].score([tmp_path], scored)
    text = found["OneIG text"].score()
    assert (text.overall, text.low) == (0.9766, None)
    assert text.by_category == {"ED": 12.5, "CR": 0.25, "WAC": 0.75}
    assert found["OneIG style"].score().overall == 0.3
    assert found["OneIG diversity"].score().overall == 0.66
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


def test_results_with_strange_values_are_refused_with_their_line(tmp_path: Path):
    file = tmp_path / "results.txt"
    picture = {"filename": "model/00000/samples/00000.png", "correct": "False"}
    write_lines(file, [picture])
    with refused(found="results.txt line 1: correct 'False'", expected="true or false"):
        BENCHMARKS["geneval"].score([file], run_of("geneval", tmp_path / "geneval"))
    file.write_text("/x/0.png, 1.0, -, 0.5, 0.5, 0.5\n")
    with refused(found="the line 1.0, -, 0.5", expected="numbers"):
        BENCHMARKS["dpg"].score([file], run_of("dpg", tmp_path / "dpg"))
    place = tmp_path / "color/annotation_blip"
    place.mkdir(parents=True)
    for answer in ("high", None, "nan"):
        write_lines(place / "vqa_result.json", [{"question_id": "0", "answer": answer}])
        with refused(found="vqa_result.json line 1"):
            BENCHMARKS["t2i-compbench"].score([place.parent], run_of("t2i-compbench", tmp_path))
    for text in ("", "not JSON", "[1, 2]"):
        file.write_text(text)
        with refused(found="results.txt"):
            BENCHMARKS["longtext-en"].score([file], run_of("longtext-en", tmp_path))
