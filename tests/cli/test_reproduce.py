"""`workbench reproduce`: rows become students, scores and a page; a second run goes on; the tables
hold what the papers compare.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, one_line
from workbench import tasks
from workbench.recipes import recipe as recipes
from workbench.rules import RULES
from workbench.tasks.plan import rule_measures
from workbench.tasks.reproduce import report as reporting
from workbench.tasks.reproduce import run as reproducing
from workbench.tasks.reproduce import tables
from workbench.tasks.reproduce.tables import TABLES, Group, Row, Table

TINY = {
    "t": Table(
        "A tiny table",
        "0000.00000",
        (
            Group(
                "-90 %",
                0.15,
                (
                    Row("cut", {"rule": "uniform", "keep": 2}, ""),
                    Row("trained", start="cut", train="koala", changes={"batch": 2}),
                    Row("rounded", start="trained", train="", int4=True),
                ),
            ),
        ),
    )
}
ROOT = Path(__file__).resolve().parents[2]
SPEC = {"table": "t", "minutes": 0, "prompts_per_category": 1, "steps": 2, "scenes": 8}


def test_rows_are_built_trained_rounded_and_compared_and_a_second_run_makes_none_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "TABLES", TINY)
    out = tmp_path / "report"
    first = tasks.run("reproduce", {**SPEC, "out": str(out)}, tmp_path / "workspace")
    assert [row["row"] for row in first["rows"]] == ["cut", "trained", "rounded"]
    assert all(
        set(row) >= {"table", "row", "parameters", "score", "low", "high", "retention"}
        for row in first["rows"]
    )
    assert len({row["parameters"] for row in first["rows"]}) == 1
    page = Path(first["page"]).read_text("utf-8")
    assert "A tiny table" in page and "comparison/index.html" in page and "http://" not in page
    made = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    again = tasks.run("reproduce", {**SPEC, "out": str(out)}, tmp_path / "workspace")
    assert again["rows"] == first["rows"]
    assert made == {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    weights = [
        next((out / "t" / "90-percent" / row).rglob("transformer/*.safetensors"))
        for row in ("cut", "trained", "rounded")
    ]
    assert len({file.read_bytes() for file in weights}) == 3


RACE = {
    "t": Table(
        "A race",
        "0000.00000",
        (
            Group(
                "-50 %",
                0.5,
                (
                    Row("uniform", {"rule": "uniform", "keep": 2}, "koala", changes={"batch": 2}),
                    Row(
                        "workbench",
                        {"rule": "uniform", "keep": 2, "gain": "length"},
                        "koala",
                        changes={"batch": 2},
                    ),
                ),
                finals=True,
            ),
        ),
    )
}


def test_runs_of_one_report_share_its_rows_and_each_is_made_once(tmp_path: Path):
    """Two processes, as on two machines with a common folder."""
    script = (
        "import json, sys\nfrom tests.cli.test_reproduce import RACE\nfrom workbench import "
        "tasks\n"
        "from workbench.tasks.reproduce import tables\n"
        "tables.TABLES = RACE\nmade = []\n"
        "seen = lambda p: made.append(p.message) if p.message.endswith(': made') else None\n"
        "result = tasks.run('reproduce', json.loads(sys.argv[1]), sys.argv[2], seen)\n"
        "print(json.dumps({'rows': result['rows'], 'made': made}))"
    )
    given = [json.dumps({**SPEC, "out": str(tmp_path / "report")}), str(tmp_path / "workspace")]
    runs = [
        subprocess.Popen([sys.executable, "-c", script, *given], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(2)
    ]
    one, two = (json.loads(run.communicate(timeout=300)[0]) for run in runs)
    assert one["rows"] == two["rows"]
    assert [row["row"] for row in one["rows"]] == [
        "uniform",
        "workbench",
        "workbench, 6 x",
        "uniform, 6 x",
    ]
    made = [*one["made"], *two["made"]]
    assert sorted(made) == sorted(
        f"-50 %, {what}: made"
        for what in (
            "uniform",
            "workbench",
            "comparing",
            "workbench, 6 x",
            "uniform, 6 x",
            "comparing",
        )
    )
    assert "first" in (tmp_path / "report" / "results.md").read_text("utf-8")


def test_the_report_says_whether_the_first_two_can_be_told_apart():
    def row(name: str, score: float, reach: float) -> dict[str, Any]:
        return {"row": name, "score": score, "low": score - reach, "high": score + reach}

    apart = [row("amber", 0.5, 0.1), row("workbench", 0.8, 0.1)]
    assert (
        reporting.verdict(apart)
        == "workbench is first, amber is next; their intervals do not overlap."
    )
    close = [
        row("amber", 0.75, 0.1),
        row("workbench", 0.8, 0.1),
        row("workbench, 6 x", 0.7, 0.1),
        row("amber, 6 x", 0.85, 0.1),
    ]
    assert reporting.verdict(close) == (
        "workbench is first, but the interval of amber (0.750) "
        "overlaps. "
        "amber, 6 x is first, but the interval of workbench, 6 x "
        "(0.700) overlaps."
    )
    many = [
        row("amber", 0.8, 0.1),
        row("koala", 0.75, 0.1),
        row("workbench", 0.75, 0.1),
        row("uniform", 0.2, 0.1),
    ]
    assert (
        reporting.verdict(many)
        == "amber is first, but the intervals of koala (0.750), workbench (0.750) overlap."
    )
    even = [row("workbench", 0.9, 0.1), row("koala", 0.9, 0.1), row("amber", 0.2, 0.1)]
    assert (
        reporting.verdict(even)
        == "workbench and koala are first, amber is next; their intervals do not overlap."
    )
    assert reporting.verdict([row("+ PWP", 0.5, 0.1), row("+ INT4", 0.4, 0.1)]) == ""


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
    before = set[tuple[str, str]]()
    for group in TABLES[table].groups:
        names = [row.name for row in group.rows]
        assert len(set(names)) == len(names)
        for row in group.rows:
            assert row.plan.get("rule", "uniform") in RULES
            assert not row.train or reproducing.training(row).stages
            assert row.plan.get("recipe", "workbench") in recipes.names()
            assert not row.start or row.start in names[: names.index(row.name)]
            assert row.on is None or row.on in before
        before |= {(group.name, name) for name in names}


def test_rows_asked_for_bring_what_they_stand_on():
    table = TABLES["amber"]
    assert {
        group: [row.name for row in rows]
        for group, rows in tables.wanted(table, ["amber-6b"], False).items()
        if rows
    } == {"-50 %": ["amber-10b"], "-70 %": ["amber-6b"]}
    hpp = tables.wanted(TABLES["hierarchicalprune"], ["+ INT4"], False)
    assert [row.name for row in hpp["-30 %"]] == ["HPP only", "+ SGDistill", "+ INT4"]
    quick, full = (tables.wanted(table, [], quick)["-50 %"] for quick in (True, False))
    assert {row.name for row in full} - {row.name for row in quick} == {"recoverable"}


def test_a_quick_run_asks_less_of_rules_that_measure_and_nothing_else_of_the_others():
    for row in (
        row for table in TABLES.values() for group in table.groups for row in group.rows if row.plan
    ):
        measures = rule_measures(row.plan.get("rule"), row.plan.get("recipe"))
        assert reproducing.plan_options(row, {"quick": True}) == {
            **row.plan,
            **(reproducing.QUICK_PLAN if measures else {}),
        }, row.name
        assert reproducing.plan_options(row, {}) == row.plan
    options = {"workbench": True, "recoverable": False, "amber-6b": False, "uniform": False}
    found = {
        row.name: "shortlist" in reproducing.plan_options(row, {"quick": True})
        for group in TABLES["amber"].groups
        for row in group.rows
        if row.name in options
    }
    assert found == options


def test_the_papers_ingredients_differ_in_what_they_say_only():
    rows = {row.name: row for row in TABLES["hierarchicalprune"].groups[1].rows}
    plain, scaled = (reproducing.training(rows[name]).stages for name in ("+ PWP", "+ SGDistill"))
    assert [stage.model_copy(update={"scale": "inverse-sensitivity"}) for stage in plain] == scaled
    ways = {row.name: row for row in TABLES["ppcl"].groups[0].rows}
    assert {stage.inputs for stage in reproducing.training(ways["sequential"]).stages} == {
        "student"
    }
    assert reproducing.training(ways["teacher-fed"]).stages[0].inputs == "teacher"
