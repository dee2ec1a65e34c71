"""Students that a comparison quantises, and the intervals of what they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.refusals import refused
from workbench import tasks
from workbench.comparison.statistics import share_interval
from workbench.records import Card, Comparison

FAST = {
    "sampling_steps": 2,
    "seeds": 2,
    "prompts_per_category": 1,
    "size": 64,
    "scorers": "diversity,ssim",
}


@pytest.mark.parametrize("categories", [1, 3])
def test_the_interval_of_a_share_is_that_of_ratios_of_resampled_prompts(categories: int):
    rng = np.random.default_rng(5)
    items = [{"prompt": str(n), "category": f"c{n % categories}"} for n in range(60)]
    first = rng.uniform(0.3, 1.0, 60)
    own = 0.8 * first + rng.normal(0, 0.1, 60)
    groups = [np.arange(60) % categories == number for number in range(categories)]
    ratios = []
    for _ in range(4000):
        means = np.zeros(2)
        for group in groups:
            drawn = rng.choice(np.flatnonzero(group), group.sum())
            means += own[drawn].mean(), first[drawn].mean()
        ratios.append(means[0] / means[1])
    low, high = share_interval(own.tolist(), first.tolist(), items)
    assert (low, high) == pytest.approx(np.percentile(ratios, [2.5, 97.5]), abs=0.005)
    assert low < 0.8 < high


def test_a_share_of_nothing_has_no_interval():
    items = [{"prompt": "a"}, {"prompt": "b"}]
    assert share_interval([1.0, 1.0], [0.0, 0.0], items) is None
    assert share_interval([1.0], [1.0], items[:1]) is None
    assert share_interval([0.5, 0.7], [0.5, 0.7], items) == (1.0, 1.0)


def compared(out: Path, **change: Any) -> Any:
    spec = {**FAST, "models": ["demo-12", "demo-12"], "names": "teacher,student", "out": str(out)}
    return tasks.run("compare", {**spec, **change}, out.parent / "workspace")


def test_the_bundled_model_is_compared_after_quantising_it(tmp_path: Path):
    result = compared(tmp_path / "out", quantized="int4,int8")
    models = {model.name: model for model in Comparison.load(result["comparison"]).models}
    assert list(models) == ["teacher", "student", "student int4", "student int8"]
    student = models["student"]
    sizes = {name: model.bytes / student.bytes for name, model in models.items()}
    assert sizes["student int4"] < 0.33 < sizes["student int8"] < 0.6
    alike = {name: model.scores["ssim"].overall for name, model in models.items()}
    assert alike["student int4"] < alike["student int8"] < alike["student"] == 1.0
    for name, model in models.items():
        share = model.retention["diversity"]
        assert ("diversity" in model.retention_intervals) == (name != "teacher")
        if name != "teacher":
            low, high = model.retention_intervals["diversity"]
            assert low <= share <= high
    folder = tmp_path / "out" / "quantized" / "student-int4"
    assert models["student int4"].source == str(folder)
    assert Card.load(folder / "card.json").quantization.to == "int4"
    written = (folder / "card.json").stat().st_mtime_ns
    again = compared(tmp_path / "out", quantized="int4,int8")
    assert (folder / "card.json").stat().st_mtime_ns == written
    assert again["retention"] == result["retention"]


def test_forms_names_and_students_that_cannot_be_quantised_are_refused(tmp_path: Path):
    with refused(found="int5", expected="nf4"):
        compared(tmp_path / "out", quantized="int5")
    with refused(found="two models named student int8"):
        names = "teacher,student,student int8"
        compared(tmp_path / "out", models=["demo"] * 3, names=names, quantized="int8")
    assert not (tmp_path / "out").exists()
