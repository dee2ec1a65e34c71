"""Plans: soundness, arithmetic, rules. No weights, no torch."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.refusals import refused
from workbench import plans, rules
from workbench.records import BadInput, Plan, Row, SensitivityMap, Span, StackInfo
from workbench.rules import Budget

from .qwen import plan, qwen_block, sensitivity, teacher


def test_published_sizes_of_qwen_image():
    assert teacher().parameters == 20_430_401_088
    assert teacher().stacks[0].block_parameters(0) == 339_831_296


def test_papers_cases_in_parameters():
    t = teacher()
    half = [{"blocks": [2 * i, 2 * i + 1]} for i in range(30)]
    assert plans.parameters(plan(half), t) == 10_235_462_208
    hybrid = [span | ({"stream": "single"} if i >= 6 else {}) for i, span in enumerate(half)]
    assert plans.parameters(plan(hybrid), t) == 6_157_486_656


def test_the_last_dual_blocks_unreachable_text_half():
    t = teacher()
    spans = [{"blocks": b} for b in range(59)] + [{"blocks": 59, "drop": ["text.output"]}]
    assert t.parameters - plans.parameters(plans.check(plan(spans), t), t) == pytest.approx(
        132.15e6, rel=1e-3
    )


@pytest.mark.parametrize(
    ("spans", "field"),
    [
        ([{"blocks": 0}, {"blocks": [2, 5]}], {"found": "block 1", "do": "before 2"}),
        ([{"blocks": [0, 2]}, {"blocks": [2, 5]}], {"found": "block 2", "do": "shorten"}),
        ([{"blocks": [0, 6]}], {"found": "block 6", "expected": "0 to 5"}),
        ([{"blocks": [0, 4]}], {"found": "block 5", "do": "extend"}),
        (
            [{"blocks": [0, 5], "drop": ["nose"]}],
            {"found": "[0-5]: part 'nose'", "expected": "text.output"},
        ),
        (
            [{"blocks": 0, "drop": ["text.output"]}, {"blocks": [1, 5]}],
            {"found": "[0]: part text.output", "expected": "block 5"},
        ),
        (
            [{"blocks": [0, 5], "stream": "single", "drop": ["text.mlp"]}],
            {"found": "[0-5]: drop text.mlp"},
        ),
        ([], {"found": "blocks 0-5", "do": "extend"}),
    ],
)
def test_an_unsound_plan_is_refused_with_the_block_and_the_reason(spans, field):
    with refused(**field):
        plans.check(plan(spans), teacher(6))


def test_a_plan_of_another_family_or_stack_is_refused():
    with refused(found="family flux", expected="family qwenimage"):
        plans.check(plan([{"blocks": [0, 5]}], family="flux"), teacher(6))
    with refused(found="'blocks'", expected="transformer_blocks"):
        plans.check(
            Plan(teacher="qwen", family="qwenimage", stacks={"blocks": [Span(blocks=(0, 5))]}),
            teacher(6),
        )


def test_blocks_of_different_shapes_do_not_average():
    odd = dict(qwen_block(8), extra=[3])
    stack = StackInfo(
        path="transformer_blocks", kind="dual", layouts=[qwen_block(8), odd], layout_of=[0, 1, 0]
    )
    t = teacher(3).model_copy(update={"stacks": [stack]})
    with refused(found="[0-1]: block 1", do="first, last or middle"):
        plans.check(plan([{"blocks": [0, 1], "init": "mean"}, {"blocks": 2}]), t)
    plans.check(plan([{"blocks": [0, 1], "init": "last"}, {"blocks": 2}]), t)


@settings(deadline=None)  # a busy machine is no failure
@given(depth=st.integers(1, 40), data=st.data())
def test_uniform_gives_a_partition_of_even_spans(depth, data):
    keep = data.draw(st.integers(1, depth))
    spans = rules.propose("uniform", teacher(depth), {"transformer_blocks": keep}).stacks[
        "transformer_blocks"
    ]
    lengths = [len(span) for span in spans]
    assert len(spans) == keep
    assert sum(lengths) == depth
    assert max(lengths) - min(lengths) <= 1


def test_amber_keeps_the_most_sensitive_blocks_and_averages_each_with_the_run_after_it():
    scores = [9.0, 1, 1, 8, 7, 1]
    spans = rules.propose(
        "amber", teacher(6), {"transformer_blocks": 3}, sensitivity(6, scores)
    ).stacks["transformer_blocks"]
    assert [(s.blocks, s.init, s.gain) for s in spans] == [
        ((0, 2), "mean", 1),
        ((3, 3), "first", 1),
        ((4, 5), "mean", 1),
    ]
    assert spans[0].source == (0, 1, 2)


def test_amber_weighs_high_noise_more():
    times = {900.0: [5.0, 1, 4, 2], 100.0: [5.0, 9, 1, 2]}
    rows = [
        Row(stack="transformer_blocks", block=b, edit="drop", timestep=t, score=s[b])
        for t, s in times.items()
        for b in range(4)
    ]
    record = SensitivityMap(teacher="qwen", fingerprint="", family="qwenimage", rows=rows)
    keep = {"transformer_blocks": 2}
    high = rules.propose("amber", teacher(4), keep, record)
    low = rules.propose("amber", teacher(4), keep, record, timestep_weight="low-noise")
    assert [s.first for s in high.stacks["transformer_blocks"]] == [0, 2]
    assert [s.first for s in low.stacks["transformer_blocks"]] == [0, 1]


def test_gain_length_and_init_reach_merged_spans_only():
    got = rules.propose(
        "uniform", teacher(5), {"transformer_blocks": 3}, init="mean", gain="length"
    )
    assert [(len(s), s.init, s.gain) for s in got.stacks["transformer_blocks"]] == [
        (1, "first", 1),
        (2, "mean", 2),
        (2, "mean", 2),
    ]


def test_protected_blocks_stay_alone():
    for rule in ("uniform", "amber"):
        got = rules.propose(
            rule,
            teacher(12),
            {"transformer_blocks": 6},
            sensitivity(12),
            protect={"transformer_blocks": frozenset({5, 11})},
        )
        alone = {s.first for s in got.stacks["transformer_blocks"] if len(s) == 1}
        assert {5, 11} <= alone, rule
        assert len(got.stacks["transformer_blocks"]) == 6


def test_a_rule_refuses_what_it_cannot_do():
    t = teacher(6)
    with refused(found="7 blocks of transformer_blocks", expected="1 to 6"):
        rules.propose("uniform", t, {"transformer_blocks": 7})
    with refused(found="sensitivity map", do="workbench profile"):
        rules.propose("amber", t, {"transformer_blocks": 3})
    with refused(found="rule 'magic'", expected="uniform, influence"):
        rules.propose("magic", t, {"transformer_blocks": 3})
    other = sensitivity(6).model_copy(update={"fingerprint": "aaaa", "teacher": "somebody"})
    with refused(found="somebody (aaaa)", expected="qwen (bbbb)"):
        rules.propose(
            "amber", t.model_copy(update={"fingerprint": "bbbb"}), {"transformer_blocks": 3}, other
        )


def test_budget_in_parameters_is_met_from_below():
    t = teacher()
    keep = rules.propose("uniform", t, budget=Budget(params=0.5)).depth()
    assert plans.parameters(rules.propose("uniform", t, keep), t) <= 0.5 * t.parameters
    more = {"transformer_blocks": keep["transformer_blocks"] + 1}
    assert plans.parameters(rules.propose("uniform", t, more), t) > 0.5 * t.parameters
    with pytest.raises(BadInput) as error:
        rules.propose("uniform", t, budget=Budget(params=0.001))
    assert "params=0.001" in error.value.found


def test_dropped_blocks_go_to_the_span_of_a_kept_neighbour():
    def spans(dropped, depth=8):
        made = plans.spans_of_kept(depth, set(range(depth)) - set(dropped))
        plans.check(plan([span.model_dump() for span in made]), teacher(depth))
        return [(span.blocks, span.init) for span in made if not span.plain]

    assert spans([]) == []
    assert spans([3, 4]) == [((2, 4), "first")]
    assert spans([0]) == [((0, 1), "last")]
    assert spans([0, 2, 5]) == [((0, 1), "last"), ((2, 3), "last"), ((4, 5), "first")]
    with pytest.raises(BadInput) as error:
        spans(range(8))
    assert error.value.do == "keep a block"
    with pytest.raises(BadInput) as error:
        spans([0, 2], depth=3)
    assert error.value.do == "keep block 0 or the last block"


@settings(deadline=None)  # a busy machine is no failure
@given(depth=st.integers(2, 20), data=st.data())
def test_dropped_blocks_are_in_no_source(depth, data):
    kept = data.draw(st.sets(st.integers(0, depth - 1)))
    try:
        made = plans.spans_of_kept(depth, kept)
    except BadInput:
        return
    plans.check(plan([span.model_dump() for span in made]), teacher(depth))
    assert {block for span in made for block in span.source} == kept


def test_weightings_agree_with_their_definitions():
    rows = [
        Row(stack="s", block=b, edit="drop", timestep=t, score=v)
        for (b, t), v in {
            (0, 1000.0): 1.0,
            (1, 1000.0): 3.0,
            (0, 0.0): 10.0,
            (1, 0.0): 30.0,
        }.items()
    ]
    record = SensitivityMap(teacher="", fingerprint="", family="qwenimage", rows=rows)
    assert plans.block_scores(record, weighting="uniform") == {("s", 0): 5.5, ("s", 1): 16.5}
    assert plans.block_scores(record, weighting="high-noise") == {("s", 0): 1.0, ("s", 1): 3.0}
    assert plans.block_scores(record, weighting="low-noise") == {("s", 0): 10.0, ("s", 1): 30.0}
    assert plans.block_scores(record, weighting="normalised") == {
        ("s", 0): pytest.approx(0.5),
        ("s", 1): pytest.approx(1.5),
    }
    assert plans.block_scores(record, weighting={1000.0: 1.0, 0.0: 1.0}) == {
        ("s", 0): 5.5,
        ("s", 1): 16.5,
    }
    with refused(found="weighting 'odd'", expected="high-noise"):
        plans.block_scores(record, weighting="odd")
