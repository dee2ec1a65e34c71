"""What is drawn, as data; and that each chart is a valid Vega-Lite specification."""

from __future__ import annotations

import pytest

from workbench import charts, marks, plans
from workbench.records import SensitivityMap, StackInfo

from . import synthetic

PATH = "transformer_blocks"


def chart(depth: int, edit: str = "drop", log: bool = True):
    teacher = synthetic.teacher(depth)
    measured = synthetic.sensitivity(teacher)
    bars = charts.block_rows(plans.block_scores(measured, edit), teacher)
    weights = charts.weight_rows(plans.timestep_weights(measured, edit, "high-noise"))
    plan = charts.plan_rows(plans.identity(teacher), teacher)
    return charts.sensitivity_chart(teacher, charts.sensitivity_rows(measured, teacher, edit), bars, weights, plan, edit=edit, log=log)


def test_rows_hold_place_score_and_error():
    teacher = synthetic.teacher(24)
    rows = charts.sensitivity_rows(synthetic.sensitivity(teacher), teacher, "drop")
    assert len(rows) == 24 * len(synthetic.TIMES)
    assert {row["at"] for row in rows} == set(range(24))
    assert all("±" in row["reading"] for row in rows)


def test_places_run_on_over_several_stacks():
    one = synthetic.teacher(4).stacks[0]
    two = one.model_copy(update={"path": "single_blocks", "layout_of": [0] * 3})
    teacher = synthetic.teacher(4).model_copy(update={"stacks": [one, two]})
    rows = charts.sensitivity_rows(synthetic.sensitivity(teacher), teacher)
    assert [r["at"] for r in rows if r["stack"] == "single_blocks" and r["timestep"] == "999"] == [4, 5, 6]
    spec = charts.sensitivity_chart(teacher, rows, [], [], charts.plan_rows(plan_of(teacher, one, two), teacher)).to_dict()
    assert len(spec["vconcat"]) == 6, "stack names come on top"


def plan_of(teacher, *stacks: StackInfo):
    return plans.identity(teacher.model_copy(update={"stacks": list(stacks)}))


def test_zero_and_negative_scores_keep_a_shade_on_the_log_scale():
    teacher = synthetic.teacher(3)
    base = synthetic.sensitivity(teacher, edits=("drop",), times=(500.0,))
    rows = [row.model_copy(update={"score": score}) for row, score in zip(base.rows, (0.0, -1.0, 2.0), strict=True)]
    cells = charts.sensitivity_rows(base.model_copy(update={"rows": rows}), teacher)
    assert [cell["shade"] for cell in cells] == [2.0, 2.0, 2.0]
    assert [cell["score"] for cell in cells] == [0.0, -1.0, 2.0]


def test_a_map_without_timesteps_has_one_row_of_cells():
    teacher = synthetic.teacher(3)
    base = synthetic.sensitivity(teacher, edits=("drop",), times=(500.0,))
    rows = [row.model_copy(update={"timestep": None, "stderr": None}) for row in base.rows]
    cells = charts.sensitivity_rows(SensitivityMap(**{**base.model_dump(), "rows": rows}), teacher)
    assert {cell["timestep"] for cell in cells} == {"all"}
    assert not any("±" in cell["reading"] for cell in cells)


def test_plan_rows_tell_the_mark_of_every_teacher_block_and_what_students_are_made_of():
    teacher = synthetic.teacher(6)
    plan = marks.edit(plans.identity(teacher), teacher, {PATH: [1, 2]}, "merge")
    plan = marks.edit(plan, teacher, {PATH: [4]}, "drop")
    rows = charts.plan_rows(plan, teacher)
    assert [row["mark"] for row in rows["marks"]] == ["keep", "merge", "merge", "keep", "drop", "keep"]
    assert [row["student"] for row in rows["marks"]] == [0, 1, 1, 2, 2, 3]
    assert [row["made of"] for row in rows["student"]] == [f"{PATH} {t}" for t in ("0", "1-2, mean, gain 2", "3-4, first", "5")]
    assert len(rows["ribbons"]) == 2 * 4


@pytest.mark.parametrize("depth", [24, 60])
@pytest.mark.parametrize("log", [True, False])
def test_the_map_is_a_valid_chart(depth: int, log: bool):
    spec = chart(depth, "merge", log).to_dict()
    assert set(spec["datasets"]) >= {"marks", "ribbons", "student"}
    assert "higher = keep" in str(spec)


def test_weights_are_shares_of_the_largest():
    weights = charts.weight_rows(plans.timestep_weights(synthetic.sensitivity(synthetic.teacher(4)), "drop", "high-noise"))
    assert weights[0] == {"timestep": "999", "weight": 1.0}
    assert weights[-1]["weight"] == pytest.approx(50 / 999)


def test_curve_rows_take_the_losses_and_skip_what_is_no_number():
    lines = [{"step": 1, "loss": 2.0, "lr": 1e-4}, {"step": 2, "loss": None}, {"step": 3, "loss": float("nan")}, {"step": 4, "loss": 1}]
    assert charts.curve_rows(lines) == [{"step": 1, "name": "loss", "value": 2.0}, {"step": 4, "name": "loss", "value": 1.0}]
    assert charts.curve_rows([{"step": 1, "speed": 3.0}]) == [{"step": 1, "name": "speed", "value": 3.0}]
    charts.curve_chart(charts.curve_rows(lines)).to_dict()


def test_score_rows_carry_intervals_and_cost_rows_shares_of_the_first():
    comparison = synthetic.comparison()
    rows = charts.score_rows(comparison)
    overall = next(row for row in rows if row["model"] == "student-12" and row["category"] == "overall")
    assert (overall["score"], overall["low"]) == (pytest.approx(0.558), pytest.approx(0.495))
    assert {row["category"] for row in rows} == {"overall", "single", "two", "position", "count", "text"}
    assert charts.cost_rows(comparison)[1]["share"] == pytest.approx(0.9, rel=1e-3)
    charts.score_chart(rows).to_dict()
