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

from workbench import tasks
from workbench.comparison.statistics import score_of
from workbench.recipes import table as recipes
from workbench.records import BadInput, Comparison, ModelResult, Progress
from workbench.rules import RULES
from workbench.tasks.plan import rule_measures
from workbench.tasks.reproduce import row as making
from workbench.tasks.reproduce import tables
from workbench.tasks.reproduce.report import race_of, verdict
from workbench.tasks.reproduce.table import Group, Row, RowId, Table, plan
from workbench.tasks.reproduce.tables import TABLES

TINY = {
    "t": Table(
        "A tiny table",
        "0000.00000",
        (
            Group(
                "-90 %",
                0.3,
                (
                    Row("cut", plan(rule="uniform", keep=2), train=""),
                    Row("trained", start="cut", train="koala", changes={"batch": 2}),
                    Row("rounded", start="trained", train="", int4=True),
                ),
                teacher="demo-12",
            ),
        ),
    )
}
ROOT = Path(__file__).resolve().parents[2]
SPEC = {"table": "t", "minutes": 0, "prompts_per_category": 1, "steps": 2, "scenes": 8}


def test_rows_are_built_trained_rounded_and_compared_after_a_kill_and_none_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "TABLES", TINY)
    out = tmp_path / "report"
    made_before = killed_while_it_trains(tmp_path)
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
    assert made_before.items() <= made.items(), "the killed run's finished rows were kept"
    again = tasks.run("reproduce", {**SPEC, "out": str(out)}, tmp_path / "workspace")
    assert again["rows"] == first["rows"]
    assert made == {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    weights = [
        next((out / "t" / "90-percent" / row).rglob("transformer/*.safetensors"))
        for row in ("cut", "trained", "rounded")
    ]
    assert len({file.read_bytes() for file in weights}) == 3


def killed_while_it_trains(folder: Path) -> dict[Path, int]:
    """Run the tiny table in a process of its own, kill -9 it in the row that trains, and return the
    weights that it has finished, with the times of their writing.
    """
    script = (
        "import json, sys\nfrom tests.cli.test_reproduce import TINY\nfrom workbench import tasks\n"
        "from workbench.tasks.reproduce import tables\n"
        "tables.TABLES = TINY\n"
        "tasks.run('reproduce', json.loads(sys.argv[1]), sys.argv[2],\n"
        "    lambda progress: print(progress.message, flush=True))"
    )
    given = [json.dumps({**SPEC, "out": str(folder / "report")}), str(folder / "workspace")]
    run = subprocess.Popen(
        [sys.executable, "-c", script, *given], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert run.stdout is not None
    for line in run.stdout:
        if "trained" in line and "made" not in line:
            break
    run.kill()
    run.wait()
    finished = (folder / "report" / "t").rglob("cut/**/transformer/*.safetensors")
    made = {file: file.stat().st_mtime_ns for file in finished}
    assert len(made) == 1
    return made


RACE = {
    "t": Table(
        "A race",
        "0000.00000",
        (
            Group(
                "-50 %",
                0.5,
                (
                    Row(
                        "uniform", plan(rule="uniform", keep=2), train="koala", changes={"batch": 2}
                    ),
                    Row(
                        "workbench",
                        plan(rule="uniform", keep=2, gain="length"),
                        train="koala",
                        changes={"batch": 2},
                    ),
                ),
                teacher="demo-12",
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
    one, two = (json.loads(run.communicate(timeout=900)[0]) for run in runs)
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


def comparison(**passes: list[int]) -> Comparison:
    """A comparison whose models pass these prompts of 200, in five categories."""
    names = ("teacher", *passes)
    categories = [str(i // 40) for i in range(200)]
    suite: list[Any] = [{"prompt": str(i), "category": categories[i]} for i in range(200)]
    models = []
    for name in names:
        passed = passes.get(name, range(200))
        values = [float(i in passed) for i in range(200)]
        models.append(
            ModelResult(
                name=name,
                source=name,
                parameters=1,
                bytes=2,
                ms_per_step=1,
                scores={"scenes": score_of(values, suite, passes=True)},
                retention={"scenes": 1.0},
            )
        )
    return Comparison(
        suite="scenes",
        prompts=[str(i) for i in range(200)],
        categories=categories,
        seeds=[0],
        steps=1,
        guidance=1,
        size=8,
        models=models,
    )


def first_of(**passes: list[int]) -> str:
    return verdict(race_of("amber", Group("-50 %", 0.5, ()), comparison(**passes)))


def test_the_verdict_pairs_pictures_of_the_same_prompt_and_seed():
    """180 and 188 of 200: intervals overlap either way. Where all eight that differ are on one
    side, the first is better; where 20 differ, 14 of them on its side, nobody can say.
    """
    nested = first_of(workbench=list(range(188)), amber=list(range(8, 188)))
    assert nested.startswith("workbench is first, ahead of amber (-0.040, ")
    crossed = first_of(workbench=list(range(6, 194)), amber=[*range(6), *range(20, 194)])
    assert crossed.startswith("workbench is first, but not significantly ahead of amber (-0.040, ")


def test_the_verdict_names_every_row_that_is_level_with_the_first():
    rows = {"amber": list(range(100)), "workbench": list(range(100)), "koala": list(range(20))}
    assert first_of(**rows) == (
        "amber is first, but not significantly ahead of workbench (+0.000, +0.000 to +0.000)."
    )
    assert first_of(koala=[1], amber=[2]) == ""  # none of ours


def test_bad_input_is_reported_before_any_work(tmp_path: Path):
    full, old, file = tmp_path / "full", tmp_path / "old", tmp_path / "file"
    full.mkdir()
    (full / "thesis.tex").write_text("work of years")
    old.mkdir()
    (old / "report.json").write_text(json.dumps({"settings": {"table": "amber"}}))
    file.write_text("")
    faults = [
        ({"table": "nothing"}, "table 'nothing'"),
        ({"table": "ppcl", "only": ["amber"]}, "--only amber"),
        ({"table": "ppcl", "out": str(full)}, f"-o {full} has no report.json"),
        ({"table": "ppcl", "out": str(old)}, f"-o {old} holds a report of other settings"),
        ({"table": "ppcl", "out": str(file)}, f"-o {file} is a file"),
    ]
    for spec, found in faults:
        with pytest.raises(BadInput) as error:
            tasks.run("reproduce", spec, tmp_path / "workspace", unwanted)
        assert error.value.found == found
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]


def unwanted(progress: Progress) -> None:
    pytest.fail(f"work began: {progress.message}")


@pytest.mark.parametrize("table", TABLES)
def test_every_row_names_rules_recipes_and_rows_that_are_there(table: str):
    before = set[RowId]()
    for group in TABLES[table].groups:
        names = [row.name for row in group.rows]
        assert len(set(names)) == len(names)
        for row in group.rows:
            if row.plan is not None:
                assert row.plan.rule is None or row.plan.rule in RULES
                assert row.plan.recipe is None or row.plan.recipe in recipes.RECIPES.names()
            assert not row.train or making.training(row).stages
            assert not row.start or row.start in names[: names.index(row.name)]
            assert row.second_step_of is None or row.second_step_of in before
        before |= {RowId(group.name, name) for name in names}


def test_rows_asked_for_bring_what_they_stand_on():
    table = TABLES["amber"]
    assert {
        group: [row.name for row in rows]
        for group, rows in tables.choose_rows(table, ["amber-6b"], False).items()
        if rows
    } == {"-50 %": ["amber-10b"], "-70 %": ["amber-6b"]}
    named = tables.choose_rows(TABLES["amber"], ["-50 %, demo-12/amber, gain"], False)
    assert {group: [row.name for row in rows] for group, rows in named.items() if rows} == {
        "-50 %, demo-12": ["amber, gain"]
    }
    group = tables.choose_rows(TABLES["amber"], ["-70 %"], False)
    assert len(group["-70 %"]) == len(TABLES["amber"].groups[1].rows)
    hpp = tables.choose_rows(TABLES["hierarchicalprune"], ["+ INT4"], False)
    assert [row.name for row in hpp["-30 %"]] == ["HPP only", "+ SGDistill", "+ INT4"]
    quick, full = (tables.choose_rows(table, [], quick)["-50 %"] for quick in (True, False))
    assert {row.name for row in full} - {row.name for row in quick} == {"recoverable", "amber-10b+"}


def test_a_quick_run_lets_rules_that_measure_measure_less_and_changes_no_others():
    measuring = []
    for table in TABLES.values():
        for _, row in table.rows():
            if row.plan is None:
                continue
            changes = making.quick_changes(row.plan, quick=True)
            measures = rule_measures(row.plan.rule, row.plan.recipe)
            assert changes == (making.QUICK_PLAN if measures else {}), row.name
            assert making.quick_changes(row.plan, quick=False) == {}
            measuring += [row.name] * bool(changes)
    assert "workbench" in measuring
    assert not {"recoverable", "amber-6b", "uniform"} & set(measuring)


def test_the_papers_ingredients_differ_in_what_they_say_only():
    rows = {row.name: row for row in TABLES["hierarchicalprune"].groups[1].rows}
    plain, scaled = (making.training(rows[name]).stages for name in ("+ PWP", "+ SGDistill"))
    assert [stage.model_copy(update={"scale": "inverse-sensitivity"}) for stage in plain] == scaled
    ways = {row.name: row for row in TABLES["ppcl"].groups[0].rows}
    assert {stage.inputs for stage in making.training(ways["sequential"]).stages} == {"student"}
    assert making.training(ways["teacher-fed"]).stages[0].inputs == "teacher"
