"""What is drawn, as data; and that each chart is a valid Vega-Lite specification."""

from __future__ import annotations

from collections import Counter

import pytest

import workbench
from tests.ui import synthetic
from workbench import charts, plans
from workbench.charts import view as look
from workbench.charts.axis import two_scales
from workbench.charts.view import Look
from workbench.plans.editing import marks
from workbench.plugins import unregister
from workbench.records import BadInput, Span

PATH = "transformer_blocks"


def chart(depth: int, edit: str = "drop", log: bool = True):
    teacher = synthetic.teacher(depth)
    seen = Look.of(teacher, synthetic.sensitivity(teacher), "high-noise")
    return look.map_chart(
        seen, edit, log=log, plan=charts.plan_rows(plans.identity(teacher), teacher)
    )


def test_rows_hold_every_edit_with_place_score_and_error():
    teacher = synthetic.teacher(24)
    measured = synthetic.full(teacher)
    rows = charts.sensitivity_rows(measured, teacher)
    assert {row["edit"] for row in rows} == set(synthetic.EDITS)
    assert {row["at"] for row in rows} == set(range(24))
    drops = charts.sensitivity_rows(measured, teacher, "drop")
    assert len(drops) == 24 * len(synthetic.TIMES) and all("stderr" in row for row in drops)


def test_places_run_on_over_several_stacks():
    teacher = synthetic.flux(4, 3)
    measured = synthetic.sensitivity(teacher)
    rows = charts.sensitivity_rows(measured, teacher)
    assert {r["at"] for r in rows} == set(range(7))
    spec = look.map_chart(
        Look.of(teacher, measured), plan=charts.plan_rows(plans.identity(teacher), teacher)
    ).to_dict()
    assert len(spec["vconcat"]) == 6, "stack names come on top"
    assert "datum.at >= 4 ? datum.at - 4" in str(spec), "blocks are counted in each stack"


@pytest.mark.parametrize("weighting", [*plans.WEIGHTINGS, {999.0: 1.0, 950.0: 0.5}])
def test_bars_are_the_block_scores_and_their_errors_lie_around_them(weighting):
    teacher = synthetic.flux(4, 3)
    seen = Look.of(teacher, synthetic.full(teacher), weighting)
    bars = charts.bar_rows(seen.sensitivity, teacher, seen.weights)
    start = charts.offsets(teacher)
    for edit in seen.edits:
        found = {row["at"]: row for row in bars if row["edit"] == edit}
        for (path, block), score in plans.block_scores(seen.sensitivity, edit, weighting).items():
            row = found[start[path] + block]
            assert row["score"] == pytest.approx(score, rel=1e-5)
            assert row["low"] < row["score"] < row["high"]


def test_scores_at_or_below_zero_share_the_floor_of_the_log_scale():
    scales = two_scales([0.0, -1.0, 0.01, 2.0])
    assert scales["floor"] == 0.01 and scales["log"]["low"] == pytest.approx(-2)
    assert scales["linear"]["low"] == -1.0 and scales["linear"]["high"] == 2.0
    for name in ("log", "linear"):
        assert (
            all(-1e-9 <= tick <= 1 + 1e-9 for tick in scales[name]["ticks"])
            and len(scales[name]["ticks"]) >= 2
        )


def test_scales_of_one_value_and_of_nothing_have_a_width():
    for values in ([], [0.0], [3.0], [-2.0], [float("nan")]):
        scales = two_scales(values)
        assert all(scales[name]["high"] > scales[name]["low"] for name in ("log", "linear"))


def test_a_map_without_timesteps_has_its_edits_as_lines_and_starts_linear():
    teacher = synthetic.teacher(38)
    measured = synthetic.imported(teacher)
    cells = charts.sensitivity_rows(measured, teacher)
    assert {cell["line"] for cell in cells} == set(measured.edits)
    assert (
        not any("stderr" in cell for cell in cells) and sum("flag" in cell for cell in cells) == 1
    )
    seen = Look.of(teacher, measured)
    assert look.default_colour(seen) == "linear" and look.default_edit(seen, "drop") == "drop:attn"
    spec = look.map_chart(seen).to_dict()
    assert "hpsv2" in str(spec) and "isValid(datum.flag)" in str(spec)
    assert seen.weights["drop:attn"] == {None: (1.0, 1.0)}, (
        "nothing is divided where there is nothing to weigh"
    )


def test_a_map_of_spans_has_their_last_blocks_as_lines_and_no_bars():
    teacher = synthetic.teacher(6)
    measured = synthetic.spans(teacher)
    cells = charts.sensitivity_rows(measured, teacher)
    assert [cell["line"] for cell in cells if cell["at"] == 4] == ["4", "5"]
    assert look.measures(Look.of(teacher, measured)) == {"bars": [], "weights": [], "scales": {}}
    assert "last block of the span" in str(look.map_chart(Look.of(teacher, measured)).to_dict())


def test_a_map_of_spans_and_timesteps_shows_each_span_once_over_all_timesteps():
    teacher = synthetic.teacher(6)
    measured = synthetic.recovery(teacher)
    rows = charts.sensitivity_rows(measured, teacher, "recovered")
    assert len(rows) == len({(row["at"], row["line"]) for row in rows}) == 5 + 4 + 3
    wanted = plans.span_scores(measured, "recovered", "uniform")
    assert all(row["score"] == pytest.approx(wanted[PATH, row["at"], row["last"]]) for row in rows)
    spec = look.map_chart(Look.of(teacher, measured), toggles=True, plan=None).to_dict()
    assert "zero-shot" in str(spec["params"]) and "recovered" in str(spec["params"])
    ratio = look.difference_rows(
        Look.of(teacher, measured), Look.of(teacher, measured), ("zero-shot", "recovered")
    )
    assert len(ratio) == 12 and all(row["one"] == pytest.approx(5 * row["two"]) for row in ratio)


def test_what_training_repaired_stands_over_what_the_blocks_score():
    teacher = synthetic.flux(4, 3)
    told, measured = synthetic.recoverability(teacher), synthetic.sensitivity(teacher)
    assert len(charts.stages(told)) == 2
    rows = charts.recovery_rows([*told, {**told[0], "after": None}], teacher, measured)
    last = [row for row in told if row["stage"] == charts.stages(told)[-1]]
    assert [(row["before"], row["after"]) for row in rows["spans"][::2]] == [
        (row["before"], row["after"]) for row in last
    ]
    assert rows["spans"][-1]["to"] == 7 and {row["when"] for row in rows["spans"]} == {
        "before",
        "after",
    }
    assert [row["value"] for row in rows["blocks"]] == pytest.approx(
        list(plans.block_scores(measured, "drop", "uniform").values())
    )
    first = charts.recovery_rows(told, teacher, stage="warm start")
    assert not first["blocks"] and first["spans"][1]["after"] == told[0]["after"]
    of_map = charts.recovery_rows(synthetic.recovery(teacher), teacher)
    assert {row["group"] for row in of_map["spans"]} == {"2 blocks", "3 blocks", "4 blocks"}
    for found in (rows, first, of_map):
        charts.recovery_chart(found).to_dict()


def test_one_chart_toggles_every_edit_and_the_scale():
    teacher = synthetic.teacher(6)
    spec = look.map_chart(
        Look.of(teacher, synthetic.full(teacher)), "merge", toggles=True
    ).to_dict()
    params = {param["name"]: param for param in spec["params"]}
    assert params["edit"]["value"] == "merge" and params["edit"]["bind"]["options"] == list(
        synthetic.EDITS
    )
    assert params["colour"]["bind"]["options"] == ["log", "linear"]
    assert {row["edit"] for row in spec["datasets"]["cells"]} == set(synthetic.EDITS)


# --- looking closer -------------------------------------------------------------------------------


def test_a_profile_is_the_block_and_its_band_a_standard_error():
    teacher = synthetic.teacher(6)
    rows = charts.profile_rows(synthetic.full(teacher), PATH, 3)
    assert {row["edit"] for row in rows} == set(synthetic.EDITS) and len(rows) == len(
        synthetic.EDITS
    ) * len(synthetic.TIMES)
    assert all(
        row["high"] - row["score"] == pytest.approx(row["score"] - row["low"]) for row in rows
    )
    charts.profile_chart(rows).to_dict()


def test_parts_stand_beside_the_whole_block_with_their_sizes():
    teacher = synthetic.teacher(6)
    rows = look.part_rows(Look.of(teacher, synthetic.full(teacher), "uniform"), PATH, 3)
    assert rows[0]["part"] == "whole block" and {row["part"] for row in rows[1:]} == {
        "attn",
        "mlp",
        "text.attn",
        "text.mlp",
    }
    assert [row["score"] for row in rows[1:]] == sorted(
        (row["score"] for row in rows[1:]), reverse=True
    )
    mlp = next(row for row in rows if row["part"] == "mlp")
    gone = plans.identity(teacher).stacks[PATH]
    gone[3] = Span(blocks=(3, 3), drop=("mlp",))
    plan = plans.identity(teacher).model_copy(update={"stacks": {PATH: gone}})
    assert mlp["parameters"] == teacher.parameters - plans.parameters(plan, teacher)


def test_side_by_side_all_edits_are_normalised_alike():
    teacher = synthetic.teacher(6)
    seen = Look.of(teacher, synthetic.full(teacher))
    rows = {
        row["edit"]: row["score"]
        for row in charts.breakdown_rows(seen.sensitivity, teacher, seen.shared)
        if row["at"] == 3
    }
    assert rows["drop"] > 10 * rows["int4"], (
        "each by its own mean would hide how far apart they are"
    )
    assert look.edits_chart(seen).to_dict()["vconcat"]


def test_a_difference_is_a_ratio_in_one_metric_and_of_ranks_between_two():
    teacher = synthetic.teacher(6)
    measured = synthetic.full(teacher)
    one = Look.of(teacher, measured)
    rows = look.difference_rows(one, one, ("drop", "merge"))
    assert {row["kind"] for row in rows} == {"ratio"} and len(rows) == 5 * len(synthetic.TIMES)
    assert all(2 ** row["difference"] == pytest.approx(row["one"] / row["two"]) for row in rows)
    rows = look.difference_rows(one, one.at(synthetic.imported(teacher)), ("drop", "drop:attn"))
    assert {row["kind"] for row in rows} == {"rank"} and sum(
        row["difference"] for row in rows
    ) == pytest.approx(0)
    charts.difference_chart(teacher, rows).to_dict()
    with pytest.raises(BadInput) as error:
        look.difference_rows(one, one, ("drop", "paint"))
    assert error.value.found == "the map has no edit 'paint'"


def test_spearman_is_scipys(rng_orders):
    stats = pytest.importorskip("scipy.stats")
    for one, two in rng_orders:
        want = stats.spearmanr(list(one.values()), list(two.values())).statistic
        assert charts.spearman(one, two) == pytest.approx(want)


@pytest.fixture
def rng_orders():
    import random

    rng = random.Random(0)
    keys = [(PATH, block) for block in range(12)]
    return [
        ({k: rng.random() for k in keys}, {k: float(rng.randint(0, 4)) for k in keys})
        for _ in range(5)
    ]


def test_orders_that_do_not_tell_blocks_apart_have_no_correlation():
    flat = {(PATH, block): 1.0 for block in range(5)}
    assert charts.spearman(flat, flat) is None and charts.spearman({}, flat) is None
    teacher = synthetic.teacher(6)
    rows = charts.correlation_rows(
        {edit: plans.block_scores(synthetic.full(teacher), edit) for edit in synthetic.EDITS}
    )
    assert all(row["correlation"] == pytest.approx(1) for row in rows if row["one"] == row["two"])
    charts.correlation_chart(rows).to_dict()


@pytest.mark.parametrize(
    ("text", "told"),
    [("1000=1, 0=0", [0.999, 0.05]), ("500=2", [2, 2]), ("0=1,1000=0;500=1", [0.002, 1.0])],
)
def test_given_weights_are_lines_between_points(text, told):
    found = look.given_weights(text, [999.0, 50.0])
    assert list(found.values()) == pytest.approx(told, abs=1e-9)


@pytest.mark.parametrize(
    "text", ["", "x", "1000", "1000=1=2", "2000=1", "1000=-1", "1000=0", "nan=1", "5=inf"]
)
def test_weights_that_are_none_are_refused_in_one_line(text):
    with pytest.raises(BadInput) as error:
        look.given_weights(text, [500.0])
    assert "\n" not in str(error.value)


# --- plans ----------------------------------------------------------------------------------------


def test_plan_rows_tell_the_mark_of_every_teacher_block_and_what_students_are_made_of():
    teacher = synthetic.teacher(6)
    plan = marks.edit(plans.identity(teacher), teacher, {PATH: [1, 2]}, "merge")
    plan = marks.edit(plan, teacher, {PATH: [4]}, "drop")
    rows = charts.plan_rows(plan, teacher)
    assert [row["mark"] for row in rows["marks"]] == [
        "keep",
        "merge",
        "merge",
        "keep",
        "drop",
        "keep",
    ]
    assert [row["student"] for row in rows["marks"]] == [0, 1, 1, 2, 2, 3]
    assert [row["made of"] for row in rows["student"]] == [
        f"{PATH} {t}" for t in ("0", "1-2, mean, gain 2", "3-4, first", "5")
    ]
    assert len(rows["ribbons"]) == 2 * 4


def test_a_plan_picture_holds_all_it_needs_and_makes_a_file():
    import json

    import vl_convert

    teacher = synthetic.flux(6, 4)
    plan = plans.identity(teacher)
    spans = [
        *plan.stacks[PATH][:2],
        Span(blocks=(2, 4), init="mean", gain=3, stream="single"),
        Span(blocks=(5, 5), drop=("text.mlp", "mlp")),
    ]
    plan = plans.check(plan.model_copy(update={"stacks": plan.stacks | {PATH: spans}}), teacher)
    rows = charts.plan_picture_rows(plan, teacher)
    assert [row["name"] for row in rows["stacks"]] == [
        f"{PATH}: 6 → 4 blocks",
        "single_transformer_blocks: 4 → 4 blocks",
    ]
    assert [row["kind"] for row in rows["student"]][:4] == ["keep", "keep", "single", "keep"]
    assert [row["less"] for row in rows["student"]][:4] == ["", "", "", "−2"]
    svg = vl_convert.vegalite_to_svg(
        json.dumps(charts.plan_picture_chart(rows).to_dict()), vl_version="6.4"
    )
    assert "teacher" in svg and "single stream" in svg


@pytest.mark.parametrize("depth", [24, 60])
@pytest.mark.parametrize("log", [True, False])
def test_the_map_is_a_valid_chart(depth: int, log: bool):
    spec = chart(depth, "merge", log).to_dict()
    assert set(spec["datasets"]) >= {"marks", "ribbons", "student"}
    assert "higher = keep" in str(spec)


def test_weights_are_shares_of_the_largest_of_their_edit():
    weights = charts.weight_rows(
        {
            "drop": plans.timestep_weights(
                synthetic.sensitivity(synthetic.teacher(4)), "drop", "high-noise"
            )
        }
    )
    assert weights[0] == {"edit": "drop", "line": "999", "weight": 1.0}
    assert weights[-1]["weight"] == pytest.approx(50 / 999)


def test_curve_rows_have_a_panel_each_and_skip_what_is_no_number():
    lines = [
        {"step": 1, "time": 2.5, "loss": 2.0, "lr": 1e-4, "stage": "warm", "stage_step": 1},
        {"step": 2, "loss": None, "loss/blocks.0": 3.0},
        {"step": 3, "loss": float("nan"), "samples_per_second": 8},
        {"step": 4, "loss": 1, "mine": 0.5, "estimated_seconds": 9},
    ]
    rows = charts.curve_rows(lines)
    assert [(row["panel"], row["name"], row["step"], row["value"]) for row in rows] == [
        ("loss", "loss", 1, 2.0),
        ("lr", "lr", 1, 1e-4),
        ("blocks", "loss/blocks.0", 2, 3.0),
        ("speed", "samples_per_second", 3, 8.0),
        ("loss", "loss", 4, 1.0),
        ("loss", "mine", 4, 0.5),
    ]
    assert [row["time"] for row in rows] == [2500, 2500, None, None, None, None]
    [alone] = charts.curve_rows([{"step": 1, "score": 3.0, "timestep": 5}])
    assert (alone["panel"], alone["name"]) == ("other", "score")
    assert charts.curve_rows(lines, ["lr"]) == rows[1:2]


def test_losses_of_many_blocks_are_thinned_and_those_of_the_whole_are_not():
    lines = synthetic.metrics(1000, blocks=60)
    rows = charts.curve_rows(lines)
    count = Counter(row["panel"] for row in rows)
    assert count["loss"] == 1000 and 60 * 100 <= count["blocks"] <= 60 * charts.curve.BLOCK_LINES


@pytest.mark.parametrize("blocks", [0, 14])
def test_a_curve_has_a_panel_for_each_quantity_of_its_rows(blocks: int):
    rows = charts.curve_rows(synthetic.metrics(20, blocks, ("feature", "output")))
    series = charts.curve_series(rows)
    drawn = charts.curve_chart(rows, legend=False).to_dict()
    titles = [panel["title"]["text"] for panel in drawn["vconcat"]]
    assert titles == [charts.curve.TITLES[panel] for panel in series]
    assert series["loss"] == ["loss", "feature", "output"]
    assert len(titles) == (5 if blocks else 1)
    colours = charts.curve_colours([f"part {number}" for number in range(10)])
    assert len(set(colours.values())) == 10
    over_time = charts.curve_chart(rows, x="time", log=False).to_dict()
    line = over_time["vconcat"][0]["layer"][1]["encoding"]
    assert (line["x"]["field"], line["y"]["field"]) == ("time", "smooth")
    assert line["y"]["scale"].get("type") != "log"


def test_score_rows_carry_intervals_and_cost_rows_shares_of_the_first():
    comparison = synthetic.comparison()
    rows = charts.score_rows(comparison)
    overall = next(
        row for row in rows if row["model"] == "student-12" and row["category"] == "overall"
    )
    assert (overall["score"], overall["low"]) == (pytest.approx(0.558), pytest.approx(0.495))
    assert {row["category"] for row in rows} == {
        "overall",
        "single",
        "two",
        "position",
        "count",
        "text",
    }
    assert charts.cost_rows(comparison)[1]["share"] == pytest.approx(0.9, rel=1e-3)
    charts.score_chart(rows).to_dict()


def test_scores_of_two_units_stand_on_two_axes():
    comparison = synthetic.comparison()
    rows = charts.score_rows(comparison)
    other = [{**row, "scorer": "psnr", "score": 30 + row["score"]} for row in rows]
    drawn = charts.score_chart(rows + other).to_dict()
    assert len(drawn["vconcat"]) == 2
    titles = [each["layer"][1]["encoding"]["x"]["title"] for each in drawn["vconcat"]]
    assert titles == [rows[0]["scorer"], "psnr"]
    assert drawn["resolve"]["scale"] == {"color": "shared"}


# --- the table ------------------------------------------------------------------------------------


def test_every_chart_of_the_table_draws_its_records():
    teacher = synthetic.teacher(6)
    measured = synthetic.full(teacher)
    bars = charts.bar_rows(measured, teacher, Look.of(teacher, measured).weights)
    order = plans.block_scores(measured, "drop")
    records = {
        "map": (measured, teacher),
        "profile": (measured, PATH, 3),
        "parts": (bars, 3),
        "correlation": ({"one": order, "two": order},),
        "plan": (plans.identity(teacher), teacher),
        "recovery": (synthetic.recovery(teacher), teacher),
        "curve": ([{"step": 1, "loss": 2.0}],),
        "scores": (synthetic.comparison(),),
        "students": (synthetic.comparison(), synthetic.comparison()),
    }
    assert charts.CHARTS.names() == list(records)
    for name, given in records.items():
        assert charts.CHARTS[name].about
        assert charts.draw(name, *given).to_dict()["$schema"]


def test_a_registered_chart_is_drawn_by_its_name():
    mine = charts.Chart(
        "Number of rows.",
        rows=lambda measured: [{"rows": len(measured.rows)}],
        chart=lambda rows, height=10: (rows, height),
    )
    workbench.register("chart", "mine", mine)
    try:
        measured = synthetic.full(synthetic.teacher(4))
        assert charts.draw("mine", measured, height=5) == ([{"rows": len(measured.rows)}], 5)
        assert "mine" in charts.CHARTS
    finally:
        unregister("chart", "mine")
    with pytest.raises(BadInput):
        charts.draw("mine")
