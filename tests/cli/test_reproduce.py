"""`workbench reproduce`: rows become students, scores and a page; a second run goes on; the tables hold what the papers compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, one_line
from workbench import tasks
from workbench.rules import RULES, recipes
from workbench.tasks import reproducing, tables
from workbench.tasks.tables import TABLES, Group, Row, Table

TINY = {"t": Table("A tiny table", "0000.00000", (Group("-90 %", 0.15, (
    Row("cut", {"rule": "uniform", "keep": 2}, ""),
    Row("trained", start="cut", train="koala", changes={"batch": 2}),
    Row("rounded", start="trained", train="", int4=True),
)),))}
SPEC = {"table": "t", "minutes": 0, "prompts_per_category": 1, "steps": 2, "scenes": 8}


def test_rows_are_built_trained_rounded_and_compared_and_a_second_run_makes_none_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "TABLES", TINY)
    out = tmp_path / "report"
    first = tasks.run("reproduce", {**SPEC, "out": str(out)}, tmp_path / "workspace")
    assert [row["row"] for row in first["rows"]] == ["cut", "trained", "rounded"]
    assert all(set(row) >= {"table", "row", "parameters", "score", "low", "high", "retention"} for row in first["rows"])
    assert len({row["parameters"] for row in first["rows"]}) == 1
    page = Path(first["page"]).read_text("utf-8")
    assert "A tiny table" in page and "comparison/index.html" in page and "http://" not in page
    made = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    again = tasks.run("reproduce", {**SPEC, "out": str(out)}, tmp_path / "workspace")
    assert again["rows"] == first["rows"]
    assert made == {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    weights = [next((out / "t" / "90-percent" / row).rglob("transformer/*.safetensors")) for row in ("cut", "trained", "rounded")]
    assert len({file.read_bytes() for file in weights}) == 3


def test_bad_input_is_one_line(command: Run, tmp_path: Path):
    assert "one of amber, hierarchicalprune, ppcl, all" in one_line(command("reproduce", "nothing"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("work of years")
    assert "is no report" in one_line(command("reproduce", "ppcl", "-o", tmp_path / "full"))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text(json.dumps({"settings": {"table": "amber"}}))
    assert "other settings" in one_line(command("reproduce", "ppcl", "-o", tmp_path / "old"))


@pytest.mark.parametrize("table", TABLES)
def test_every_row_names_rules_recipes_and_rows_that_are_there(table: str):
    for group in TABLES[table].groups:
        names = [row.name for row in group.rows]
        assert len(set(names)) == len(names)
        for row in group.rows:
            assert row.plan.get("rule", "uniform") in RULES
            assert not row.train or reproducing.training(row).stages
            assert row.plan.get("recipe", "workbench") in recipes.names()
            assert not row.start or row.start in names[: names.index(row.name)]


def test_the_papers_ingredients_differ_in_what_they_say_only():
    rows = {row.name: row for row in TABLES["hierarchicalprune"].groups[1].rows}
    plain, scaled = (reproducing.training(rows[name]).stages for name in ("+ PWP", "+ SGDistill"))
    assert [stage.model_copy(update={"scale": "inverse-sensitivity"}) for stage in plain] == scaled
    ways = {row.name: row for row in TABLES["ppcl"].groups[0].rows}
    assert {stage.inputs for stage in reproducing.training(ways["sequential"]).stages} == {"student"}
    assert reproducing.training(ways["teacher-fed"]).stages[0].inputs == "teacher"
