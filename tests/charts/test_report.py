"""All students in one drawing, what was lost, and the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from workbench import charts
from workbench.charts.report import Source, data_address, report_html, report_markdown
from workbench.cli.main import run
from workbench.records import Comparison, Difference, ModelResult, Score

RNG = np.random.default_rng(0)
PROMPTS = ["a | b", "<b>two</b> cats", "three"]
SEEDS = [0, 1]
CATEGORIES = ["one", "two", "two"]


def model(name: str, parameters: int, quality: list[float], alike: list[float]) -> ModelResult:
    values = np.array(quality).reshape(3, 2).mean(1)
    parts = {"one": values[0], "two": values[1:].mean()}
    overall = (parts["one"] + parts["two"]) / 2
    interval = {"low": overall - 0.1, "high": overall + 0.1}
    scores = {
        "ssim": Score(overall=float(np.mean(alike)), per_image=alike),
        "quality": Score(overall=overall, by_category=parts, per_image=quality, **interval),
    }
    difference = (
        {} if name == "teacher" else {"quality": Difference(mean=-0.25, low=-0.5, high=0.0)}
    )
    return ModelResult(
        name=name,
        source=name,
        parameters=parameters,
        bytes=2 * parameters,
        ms_per_step=parameters / 1e5,
        scores=scores,
        retention={"ssim": None, "quality": overall},
        difference=difference,
    )


def comparison(*students: ModelResult) -> Comparison:
    models = [model("teacher", 10_000_000, [1.0] * 6, [1.0] * 6), *students]
    images = {m.name: [f"images/{m.name}-{at}.png" for at in range(6)] for m in models}
    return Comparison(
        suite="mine",
        prompts=PROMPTS,
        seeds=SEEDS,
        categories=CATEGORIES,
        steps=4,
        guidance=1,
        size=8,
        models=models,
        images=images,
    )


SMALL = model("small", 4_000_000, [1, 0.5, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.2])
TINY = model("tiny", 1_000_000, [0.5] * 6, RNG.random(6).tolist())


def test_the_front_is_what_a_sweep_by_cost_finds():
    students = []
    for number in range(40):
        quality = RNG.integers(0, 5, 6) / 4
        size = int(RNG.integers(1, 12)) * 1_000_000
        students.append(model(f"s{number}", size, quality.tolist(), [0.0] * 6))
    rows = charts.student_rows(comparison(*students))
    assert len(rows) == 41 and {row["scorer"] for row in rows} == {"quality"}
    best = -np.inf
    expected = set()
    for size in sorted({row["parameters"] for row in rows}):
        level = [row for row in rows if row["parameters"] == size]
        top = max(row["score"] for row in level)
        if top > best:
            expected |= {row["model"] for row in level if row["score"] == top}
            best = top
    assert {row["model"] for row in rows if "parameters" in row["front"].split()} == expected


def test_models_of_several_comparisons_are_drawn_once_and_on_the_same_prompts():
    rows = charts.student_rows(comparison(SMALL), comparison(TINY))
    assert [row["model"] for row in rows] == ["teacher", "small", "tiny"]
    assert [row["time"] for row in rows] == [1.0, 0.4, 0.1]
    for cost in ("parameters", "bytes", "time"):
        assert charts.student_chart(rows, cost=cost).to_dict()["$schema"]
    other = comparison(TINY).model_copy(update={"seeds": [3, 4]})
    with refused(found="different prompts or seeds"):
        charts.student_rows(comparison(SMALL), other)
    with refused(found="scorer nothing"):
        charts.student_rows(comparison(SMALL), scorer="nothing")
    with refused(found="cost money", expected="parameters"):
        charts.student_chart(rows, cost="money")


def test_losses_by_category_are_differences_of_means_the_largest_first():
    rows = charts.lost_rows(comparison(SMALL, TINY))
    assert {row["scorer"] for row in rows} == {"quality"}, "likeness is no loss"
    lost = {(row["model"], row["category"]): row["lost"] for row in rows}
    assert lost == pytest.approx(
        {("small", "one"): 0.25, ("small", "two"): 0.5, ("tiny", "one"): 0.5, ("tiny", "two"): 0.5}
    )
    values = [row["lost"] for row in rows]
    assert values == sorted(values, reverse=True)


def test_the_worst_pictures_come_first_and_ties_go_by_likeness():
    rows = charts.worst_rows(comparison(SMALL))
    assert [(row["at"], row["lost"]) for row in rows] == [(5, 1.0), (2, 1.0), (1, 0.5)]
    assert rows[0]["prompt"] == "three" and rows[0]["seed"] == 1 and rows[0]["category"] == "two"
    assert charts.worst_rows(comparison(SMALL), count=1) == rows[:1]
    lower = {"direction": "lower = better"}
    flipped = comparison(SMALL)
    models = []
    for each in flipped.models:
        quality = each.scores["quality"].model_copy(update=lower)
        models.append(each.model_copy(update={"scores": {**each.scores, "quality": quality}}))
    flipped = flipped.model_copy(update={"models": models})
    assert charts.worst_rows(flipped) == [], "fewer is better: nothing is worse than the teacher"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two comparisons on disk, of the same prompts."""
    root = tmp_path_factory.mktemp("comparisons")
    made = []
    for name, student in (("first", SMALL), ("second", TINY)):
        record = comparison(student)
        record.save(root / name / "comparison.json")
        (root / name / "images").mkdir()
        for files in record.images.values():
            for number, file in enumerate(files):
                Image.new("RGB", (400, 400), (40 * number, 0, 0)).save(root / name / file)
        made.append(root / name)
    return made


def test_the_page_has_everything_inside_and_names_are_text(folders: list[Path]):
    page = report_html([Source.load(folder) for folder in folders])
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)", page)
    inside = [address for address in addresses if address.startswith("data:image/webp;base64,")]
    outside = [address for address in addresses if not address.startswith(("data:", "#"))]
    assert len(inside) == 2 * (3 + 6) and outside == []
    assert "url(http" not in page and "<script" not in page
    assert "&lt;b&gt;two&lt;/b&gt; cats" in page and "<b>two</b> cats" not in page
    assert page.count("<svg") == 2 and "Pareto front" in page
    assert page.index("three") < page.index("a | b"), "the worst difference comes first"


def test_the_table_has_a_row_for_each_model_and_its_figures(folders: list[Path]):
    text = report_markdown([comparison(SMALL), comparison(TINY)])
    rows = [line for line in text.split("\n") if line.startswith("| ")]
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    head, _, *models = table[:6]
    assert [row[0] for row in models] == ["teacher", "small", "teacher", "tiny"]
    small = dict(zip(head, models[1], strict=True))
    assert (small["parameters"], small["share"], small["speed-up"]) == ("4.00 M", "40 %", "2.50×")
    assert small["quality"] == "0.625 [0.525, 0.725]" and "-0.25 [-0.5, +0]" in models[1]
    assert "62.5 %" in models[1]
    assert "a \\| b" not in text and "| small | 1 | 0.5 |" in text


def test_the_command_writes_both_and_refuses_what_does_not_compare(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "report.html"
    arguments = [
        "report",
        *map(str, folders),
        "-o",
        str(out),
        "--workspace",
        str(tmp_path),
        "--json",
    ]
    assert run(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"page": str(out), "table": str(tmp_path / "report.md"), "models": 4}
    assert out.read_text().startswith("<!doctype html>")
    assert run(["report", str(tmp_path / "nothing"), "--workspace", str(tmp_path)]) == 2
    assert run(["report", str(folders[0]), "-o", "x.pdf", "--workspace", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.strip().split("\n")
    assert len(errors) == 2 and "ends in .html" in errors[1]


def test_a_picture_outside_the_comparison_is_left_out(folders: list[Path], tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    assert data_address(folders[0], str(tmp_path / "secret.png")) == ""
    assert data_address(folders[0], "../second/images/tiny-0.png") == ""
    assert data_address(folders[0], "images/small-0.png").startswith("data:image/webp")
