"""The predicted error follows each span's very edit; what a map does not know is named."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from workbench import plans
from workbench.plans.predicted_error import canonical, merge_name
from workbench.records import Plan, Row, SensitivityMap, Teacher

from .qwen import plan, teacher

PATH = "transformer_blocks"


def a_map(scores: Mapping[str, list[float]], metric: str = "prediction") -> SensitivityMap:
    """One timestep; edit -> score of each block."""
    rows = [
        Row(stack=PATH, block=block, edit=edit, timestep=500.0, score=score)
        for edit, of_edit in scores.items()
        for block, score in enumerate(of_edit)
    ]
    return SensitivityMap(
        teacher="qwen", fingerprint="", family="qwenimage", metric=metric, rows=rows
    )


KNOWN = {
    "drop": [1.0, 2.0, 4.0, 8.0],
    "merge": [0.1, 0.2, 0.4],
    "merge:first": [0.3, 0.6, 1.2],
    "merge:mean:1": [10.0, 20.0, 40.0],
    "drop:mlp": [0.5] * 4,
    "single": [0.7] * 4,
}


@pytest.mark.parametrize(
    "spans, value",
    [
        ([{"blocks": b} for b in range(4)], 0.0),
        ([{"blocks": [0, 1]}, {"blocks": 2}, {"blocks": 3}], 2.0),
        ([{"blocks": [0, 1], "init": "last"}, {"blocks": 2}, {"blocks": 3}], 1.0),
        ([{"blocks": [0, 1], "init": "mean", "gain": 2}, {"blocks": 2}, {"blocks": 3}], 0.1),
        ([{"blocks": [0, 1], "init": "mean"}, {"blocks": 2}, {"blocks": 3}], 10.0),
        ([{"blocks": [0, 1], "gain": 2}, {"blocks": 2}, {"blocks": 3}], 0.3),
        ([{"blocks": [0, 1], "init": "middle", "gain": 2}, {"blocks": 2}, {"blocks": 3}], 0.3),
        ([{"blocks": [0, 2], "init": "mean", "gain": 3}, {"blocks": 3}], 0.1 + 0.2),
        ([{"blocks": [0, 2], "init": "mean"}, {"blocks": 3}], 10 + 20),
        ([{"blocks": [0, 2]}, {"blocks": 3, "drop": ["mlp"]}], 2 + 4 + 0.5),
        ([{"blocks": [0, 2], "stream": "single"}, {"blocks": 3}], 2 + 4 + 0.7),
    ],
)
def test_the_error_is_the_sum_of_the_scores_of_what_each_span_does(spans, value):
    error = plans.predicted_error(plan(spans), a_map(KNOWN))
    assert error.value == pytest.approx(value) and not error.unknown


@pytest.mark.parametrize(
    "span, unknown, command",
    [
        ({"blocks": [0, 3], "init": "mean", "gain": 2.5}, "merge:mean:2.5 of 4 blocks", ""),
        ({"blocks": [0, 3], "init": "last", "gain": 4}, "merge:last", "--edits merge:last"),
        ({"blocks": [0, 3], "drop": ["attn"]}, "drop:attn", "--edits drop,drop:attn"),
    ],
)
def test_what_the_map_does_not_know_is_named_with_the_command(span, unknown, command):
    error = plans.predicted_error(plan([span]), a_map(KNOWN))
    assert error.value is None and error.unknown_edits == [unknown]
    assert error.command == (f"workbench profile qwen {command}" if command else "")


def test_a_gain_is_never_taken_for_another():
    bundled_like = a_map({edit: KNOWN[edit] for edit in ("drop", "merge", "merge:first")})
    pair = {"blocks": [0, 1], "init": "mean"}
    rest = [{"blocks": 2}, {"blocks": 3}]
    with_gain = plans.predicted_error(plan([pair | {"gain": 2}, *rest]), bundled_like)
    without = plans.predicted_error(plan([pair, *rest]), bundled_like)
    assert with_gain.value == pytest.approx(0.1) and without.value is None
    assert without.command == "workbench profile qwen --edits merge:mean:1"


def test_maps_that_rank_predict_no_error():
    drops = plan([{"blocks": [0, 3]}])
    assert plans.predicted_error(drops, a_map({"drop": [1.0] * 4}, "influence")).value is None
    rows = [Row(stack=PATH, block=0, last=3, edit="span", score=0.9)]
    cka = a_map({}, "cka").model_copy(update={"rows": rows})
    assert plans.predicted_error(drops, cka).value is None


@pytest.mark.parametrize(
    "name, same",
    [
        ("merge", "merge"),
        ("merge:mean", "merge"),
        ("merge:mean:2", "merge"),
        ("merge:first:2.0", "merge:first"),
        ("merge:middle", "merge:first"),
        ("merge:mean:1.0", "merge:mean:1"),
        ("drop:text.mlp", "drop:text.mlp"),
    ],
)
def test_one_edit_has_one_name(name, same):
    assert canonical(name) == same


def test_the_names_are_those_that_profile_reads():
    from workbench.sensitivity.edits import parse_edit

    for init, gain in (("mean", 2.0), ("mean", 1.0), ("last", 1.5), ("first", 2.0)):
        span = parse_edit(merge_name(init, gain), teacher(4)).span(1)
        assert span is not None and (span.init, span.gain) == (init, gain)


def test_the_json_keys_say_what_is_unknown():
    whole = plan([{"blocks": [0, 3], "init": "last", "gain": 4}])
    told = plans.plan_info(whole, teacher(4), a_map(KNOWN)).to_json()
    assert told["predicted_error"] is None and told["predicted_speedup"] == pytest.approx(4)
    assert told["predicted_error_unknown"]["edits"] == ["merge:last"]
    assert told["predicted_error_unknown"]["blocks"][0] == {
        "stack": PATH,
        "block": 0,
        "edit": "merge:last",
    }
    known = plans.plan_info(plan([{"blocks": [0, 3]}]), teacher(4), a_map(KNOWN)).to_json()
    assert known["predicted_error"] == 14 and known["predicted_error_unknown"] is None
    none = plans.plan_info(whole, teacher(4)).to_json()
    assert none["predicted_error"] is None and none["predicted_error_unknown"] is None


# --- against a measurement -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    """The bundled teacher, what measures plans on it, and a map measured on the same calls."""
    from workbench import demo as bundled
    from workbench import models
    from workbench.sensitivity.measured_error import PlanMeter

    folder = bundled.weights_folder()
    described = models.describe(folder, "demo")
    pipe = models.load_pipeline(folder, device="cpu")
    prompts = ["a big orange cross on mint", "two yellow stars on slate"]
    calls = models.trajectories(
        pipe, prompts, seeds=[0, 0], steps=20, guidance=3.0, size=128, timesteps=3
    )
    return described, PlanMeter(pipe.transformer, described, list(calls))


def pairs(described: Teacher, starts: list[int], gain: float) -> Plan:
    """`demo` with the pairs that begin at `starts` averaged, all else as it is."""
    inside = {start + 1 for start in starts}
    spans = plans.spans_of(24, set(range(24)) - inside)
    merged = {"init": "mean", "gain": gain}
    shaped = [s.model_copy(update=merged) if len(s) == 2 else s for s in spans]
    return Plan(teacher="demo", family=described.family, stacks={PATH: shaped})


@pytest.mark.parametrize("gain, factor", [(1.0, 4.0), (2.0, 2.0)])
def test_twelve_averaged_pairs_of_the_bundled_teacher(demo, gain, factor):
    """One pair is predicted as measured; the sum over twelve is near what all of them do at once.
    The old figure was 0.061 for both gains, fifty times too low for gain 1.
    """
    described, meter = demo
    edit = merge_name("mean", gain)
    rows = []
    for start in range(0, 24, 2):
        for time, score in meter.errors(pairs(described, [start], gain)).items():
            rows.append(Row(stack=PATH, block=start, edit=edit, timestep=time, score=score))
    measured = SensitivityMap(teacher="demo", fingerprint="", family=described.family, rows=rows)
    one = pairs(described, [4], gain)
    assert plans.predicted_error(one, measured).value == pytest.approx(meter.error(one), rel=1e-6)
    twelve = pairs(described, list(range(0, 24, 2)), gain)
    predicted = plans.predicted_error(twelve, measured).value
    assert predicted is not None
    assert 1 / factor < predicted / meter.error(twelve) < factor


def test_the_bundled_map_knows_the_gain_that_it_has_rows_for(demo):
    from workbench.records import SensitivityMap as Map

    described, _ = demo
    from workbench import demo as bundled

    folder = bundled.weights_folder().parent
    shipped = Map.load(folder / "sensitivity.json")
    even = list(range(0, 24, 2))
    with_gain = plans.predicted_error(pairs(described, even, 2.0), shipped)
    assert with_gain.value == pytest.approx(0.061, abs=0.0006)  # measured: 0.064
    without = plans.predicted_error(pairs(described, even, 1.0), shipped)
    assert without.value is None  # measured: 3.06
    assert without.command == "workbench profile demo --edits merge:mean:1"
