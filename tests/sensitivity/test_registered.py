"""A metric and an edit from outside the package: one call each, then they work as the built-in ones.
The tables themselves are read without torch.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import workbench
from tests.tiny import tiny_inputs, tiny_transformer
from workbench import models
from workbench.models import Call
from workbench.models.blocks import Place, bypassing
from workbench.models.replay import Change
from workbench.plugins import registry, unregister
from workbench.records import BadInput, SensitivityMap, Teacher
from workbench.sensitivity.edits import Edit, parse_edit
from workbench.sensitivity.profiling import profile
from workbench.sensitivity.results import Key, Scores
from workbench.sensitivity.scan import Scan
from workbench.sensitivity.scan_settings import Setting
from workbench.sensitivity.table import EditKind, EditOptions, Metric
from workbench.specs import ProfileSpec
from workbench.specs.base import facts

ROOT = Path(__file__).resolve().parents[2]


def largest_change(scan: Scan, call: Call) -> Scores:
    """The largest change of any value of the prediction, per sample."""
    reference = scan.reference(call)
    scores: Scores = {}
    for edit in scan.edits:
        for place in scan.places(edit):
            changed = scan.edited_prediction(reference, edit, place)
            difference = (changed - reference.prediction).abs().flatten(1)
            scores[Key(*place, edit.name)] = difference.amax(1).tolist()
    return scores


def dampen(scan: Scan, edit: Edit, place: Place) -> list[Change]:
    """The block adds only a share of what it adds."""
    share = float(edit.options.text)
    block = scan.blocks[place]

    def change(old):  # type: ignore[no-untyped-def]
        before = bypassing(block.row)(old)

        def new(*args, **kwargs):  # type: ignore[no-untyped-def]
            pairs = zip(before(*args, **kwargs), old(*args, **kwargs), strict=True)
            return tuple(a + share * (b - a) for a, b in pairs)

        return new

    return [(block.module, change)]


def parse_share(text: str, teacher: Teacher) -> EditOptions:
    if not text.startswith("0."):
        raise ValueError("dampen:SHARE with a share below 1")
    return EditOptions(text=text)


@pytest.fixture(autouse=True)
def rows() -> Iterator[None]:
    metric = Metric(
        "largest change of a value",
        "higher = keep",
        "How far one value moves.",
        needs="call",
        measure=largest_change,
        edits=("drop",),
    )
    workbench.register("metric", "largest", metric)
    workbench.register("edit", "dampen", EditKind("Adds less.", changes=dampen, parse=parse_share))
    yield
    unregister("metric", "largest")
    unregister("edit", "dampen")


def calls() -> list[Call]:
    return [Call(tiny_inputs(seed=seed), 500.0, seed, 2, "cond") for seed in range(2)]


def scan_map(edits: list[str] | None, metric: str, partial: Path | None = None) -> SensitivityMap:
    model = tiny_transformer(depth=3)
    teacher = models.describe_module(model)
    setting = Setting(partial=partial)
    work = profile(model, teacher, calls(), edits=edits, metric=metric, setting=setting)
    return list(work)[-1].result


def test_a_registered_metric_scans_resumes_and_is_offered(tmp_path: Path) -> None:
    found = scan_map(None, "largest", tmp_path / "partial")
    assert (found.metric, found.unit, found.edits) == (
        "largest",
        "largest change of a value",
        ["drop"],
    )
    assert scan_map(None, "largest", tmp_path / "partial").rows == found.rows
    model = tiny_transformer(depth=3)
    values = []
    for call in calls():
        with torch.no_grad():
            reference = models.prediction(model(**call.kwargs))
            scan = Scan(model)
            edit = parse_edit("drop", models.describe_module(model))
            changed = scan.edited_prediction(scan.reference(call), edit, ("transformer_blocks", 1))
        values += (changed - reference).abs().flatten(1).amax(1).tolist()
    score = next(row.score for row in found.rows if row.block == 1)
    assert score == pytest.approx(sum(values) / len(values), rel=1e-5)
    [offered] = [fact for fact in facts(ProfileSpec) if fact.name == "metric"]
    assert "largest" in offered.choices


def test_a_registered_edit_scans_beside_the_others() -> None:
    found = scan_map(["drop", "dampen:0.5", "dampen:0.999"], "prediction")
    scores = {(row.edit, row.block): row.score for row in found.rows}
    for block in range(3):
        assert 0 < scores["dampen:0.999", block] < scores["dampen:0.5", block]
        assert scores["dampen:0.5", block] < scores["drop", block]
    assert "dampen" in registry("edit").names()


def test_an_edit_says_what_may_follow_its_name() -> None:
    teacher = models.describe_module(tiny_transformer(depth=2))
    with pytest.raises(BadInput) as error:
        parse_edit("dampen:2", teacher)
    assert error.value.expected == "dampen:SHARE with a share below 1"
    with pytest.raises(BadInput) as error:
        parse_edit("melt", teacher)
    assert "dampen" in error.value.expected and "drop:PART" in error.value.expected


def test_the_tables_import_no_torch() -> None:
    code = (
        "import sys; from workbench.plugins import registry\n"
        "rows = [registry('metric').items(), registry('edit').items(), registry('chart').names()]\n"
        "assert 'torch' not in sys.modules and len(rows[0]) >= 5 and len(rows[1]) >= 5"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
