"""Every rule: what its paper means it to do, its budgets, and what it refuses. No weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from tests.plans.qwen import plan, qwen_block, sensitivity, teacher
from tests.refusals import refused
from workbench import plans, rules
from workbench.families import FAMILIES
from workbench.plans import Tokens
from workbench.recipes import table as recipes
from workbench.records import Plan, Row, SensitivityMap, Span, StackInfo, Teacher
from workbench.rules import Budget, hierarchical, ppcl
from workbench.specs import PlanSpec, facts

PATH = "transformer_blocks"
SETTINGS = [*(field.name for field in dataclasses.fields(rules.Settings)), "start"]


def spans(made: Plan) -> list[Span]:
    return made.stacks[PATH]


def kept(made: Plan) -> list[int]:
    return [span.source[0] for span in spans(made)]


def a_map(rows: dict[str, list[float]], metric: str = "prediction") -> SensitivityMap:
    """One timestep; edit -> score of each block."""
    return SensitivityMap(
        teacher="qwen",
        fingerprint="",
        family="qwenimage",
        metric=metric,
        rows=[
            Row(stack=PATH, block=block, edit=edit, timestep=500.0, score=score)
            for edit, scores in rows.items()
            for block, score in enumerate(scores)
        ],
    )


def cka_map(table: dict[tuple[int, int], float]) -> SensitivityMap:
    return SensitivityMap(
        teacher="qwen",
        fingerprint="",
        family="qwenimage",
        metric="cka",
        direction="higher = easier to replace",
        rows=[
            Row(stack=PATH, block=u, last=k, edit="span", score=score)
            for (u, k), score in table.items()
        ],
    )


def test_every_rule_says_what_it_is_and_every_option_is_explained():
    for name, rule in rules.RULES.items():
        assert rule.title and rule.about.endswith("."), name
        assert rule.link == "" or rule.link.startswith("https://"), name
        assert set(rule.options) <= set(SETTINGS), name
        assert rule.needs_map == (rule.metric is not None), name
    described = {fact.name: fact.about for fact in facts(PlanSpec)}
    assert all(described[name].endswith(".") for name in SETTINGS)
    assert {o for rule in rules.RULES.values() for o in rule.options} == set(SETTINGS)


# --- influence ------------------------------------------------------------------------------------


def test_influence_keeps_the_blocks_that_change_their_input_most_with_their_own_weights():
    made = rules.propose(
        "influence",
        teacher(6),
        {PATH: 3},
        a_map({"drop": [0.1, 0.4, 0.01, 0.02, 0.3, 0.2]}, "influence"),
    )
    assert [(s.blocks, s.init) for s in spans(made)] == [
        ((0, 0), "first"),
        ((1, 3), "first"),
        ((4, 5), "first"),
    ]


def test_influence_reads_no_other_metric():
    with refused(found="metric prediction", expected="metric influence", do="--metric influence"):
        rules.propose("influence", teacher(6), {PATH: 3}, sensitivity(6))


# --- hierarchical ---------------------------------------------------------------------------------


def test_hierarchical_lets_the_deeper_of_two_equal_blocks_go_first():
    """The paper's intent; its printed formula, taken literally, would drop the early one (Score =
    -|dP| W_pos, highest first).
    """
    made = rules.propose("hierarchical", teacher(8), {PATH: 5}, a_map({"drop": [1.0] * 8}))
    assert kept(made) == [0, 1, 2, 3, 4]
    printed = {b: -1.0 * math.exp((b - 8) / 8) for b in range(8)}
    assert max(printed, key=lambda b: printed[b]) == 0


def test_hierarchical_still_keeps_a_deep_block_that_contributes_much():
    made = rules.propose(
        "hierarchical", teacher(8), {PATH: 3}, a_map({"drop": [1.0, 1, 1, 1, 1, 1, 9, 1]})
    )
    assert kept(made) == [0, 1, 6]
    assert hierarchical.importance(1, 0, 8) == pytest.approx(
        math.e * hierarchical.importance(1, 8, 8)
    )


def test_hierarchical_drops_whole_blocks_then_parts_until_the_budget_is_met():
    t = teacher(8)
    scores = a_map(
        {"drop": [9.0, 8, 7, 6, 5, 4, 3, 2], "drop:text.mlp": [0.1] * 8, "drop:mlp": [5.0] * 8}
    )
    budget = Budget(params=0.6)
    made = rules.propose("hierarchical", t, sensitivity=scores, budget=budget)
    total = plans.parameters(made, t)
    assert total <= 0.6 * t.parameters
    assert len(spans(made)) == 5  # four whole blocks would do: parts of the fifth make up the rest
    assert all(span.drop in ((), ("text.mlp",)) for span in spans(made))
    dropped = [s.source[0] for s in spans(made) if s.drop]
    assert dropped == [4 - i for i in range(len(dropped))][::-1]  # the deeper ones
    back = spans(made)[dropped[0]].model_copy(update={"drop": ()})
    more = made.model_copy(
        update={
            "stacks": {PATH: [*spans(made)[: dropped[0]], back, *spans(made)[dropped[0] + 1 :]]}
        }
    )
    assert plans.parameters(more, t) > 0.6 * t.parameters  # not one part more than needed


def test_hierarchical_with_a_depth_and_a_budget_takes_both():
    t = teacher(8)
    scores = a_map({"drop": [9.0, 8, 7, 6, 5, 4, 3, 2], "drop:text.mlp": [0.1] * 8})
    made = rules.propose("hierarchical", t, {PATH: 6}, scores, budget=Budget(params=0.7))
    assert len(spans(made)) == 6 and plans.parameters(made, t) <= 0.7 * t.parameters
    alone = rules.propose("hierarchical", t, {PATH: 6}, scores)
    assert all(not span.drop for span in spans(alone)) and len(spans(alone)) == 6
    blocks = rules.propose(
        "hierarchical", t, sensitivity=scores, budget=Budget(params=0.6), parts=False
    )
    assert (
        all(not span.drop for span in spans(blocks))
        and plans.parameters(blocks, t) <= 0.6 * t.parameters
    )


# --- ppcl -----------------------------------------------------------------------------------------


def falling(depth: int, heavy: set[int]) -> dict[tuple[int, int], float]:
    """CKA that loses less and less with every block, but much at a heavy one."""
    table = {}
    for u in range(depth):
        value, step = 1.0, 0.05
        for k in range(u, depth):
            value -= 0.3 if k in heavy else step
            step *= 0.5
            table[u, k] = max(value, 0.0)
    return table


def test_ppcl_intervals_grow_while_the_damage_falls_and_end_before_it_rises():
    table = falling(10, {4, 7})
    assert ppcl.intervals(table, 10, {0}) == [(0, 3), (4, 6), (7, 9)]
    # the first step has none to rise from
    assert ppcl.intervals(table, 10, {0, 2, 3}) == [(0, 1), (2, 2), (3, 6), (7, 9)]


def test_ppcl_takes_the_cheapest_intervals_until_the_budget_is_met_from_the_middle_block():
    made = rules.propose("ppcl", teacher(10), {PATH: 7}, cka_map(falling(10, {4, 7})))
    assert [s.blocks for s in spans(made) if len(s) > 1] == [(0, 3)]
    assert spans(made)[0].init == "middle" and spans(made)[0].source == (1,)
    fewer = rules.propose("ppcl", teacher(10), {PATH: 3}, cka_map(falling(10, {4, 7})))
    assert [s.blocks for s in spans(fewer)] == [(0, 3), (4, 6), (7, 9)]
    fewest = rules.propose("ppcl", teacher(10), {PATH: 2}, cka_map(falling(10, {4, 7})))
    assert len(spans(fewest)) == 2  # joined where no interval is left


def test_ppcl_needs_spans_from_every_block():
    with refused(found="block 0", do="--metric cka"):
        rules.propose("ppcl", teacher(4), {PATH: 2}, cka_map({(1, 1): 0.9}))
    with refused(found="metric prediction", expected="metric cka", do="--metric cka"):
        rules.propose("ppcl", teacher(4), {PATH: 2}, sensitivity(4))


# --- hybrid ---------------------------------------------------------------------------------------


def test_amber_hybrid_makes_the_deep_blocks_single_and_gives_the_published_sizes():
    t, scores = teacher(), sensitivity(60, [float(60 - b) for b in range(60)])
    made = rules.propose("amber-hybrid", t, {PATH: 30}, scores)
    assert plans.parameters(made, t) == 6_157_486_656  # 6 dual, 24 single
    assert [span.stream for span in spans(made)] == [None] * 6 + ["single"] * 24
    ten = rules.propose("amber-hybrid", t, {PATH: 30}, scores, single_from=10)
    assert plans.parameters(ten, t) == 6_837_149_248  # 10 dual, 20 single
    assert plans.parameters(rules.propose("amber", t, {PATH: 30}, scores), t) == 10_235_462_208


def test_a_family_that_cannot_is_refused_with_the_reason():
    stack = StackInfo(path=PATH, kind="dual", layouts=[qwen_block(8)], layout_of=[0] * 4)
    t = Teacher(
        name="f",
        family="flux2",
        class_name="Flux2Transformer2DModel",
        outside=0,
        stacks=[
            stack,
            stack.model_copy(update={"path": "single_transformer_blocks", "kind": "single"}),
        ],
    )
    with refused(found="family flux2", expected="qwenimage", do="single_from"):
        rules.propose("uniform", t, {PATH: 2}, single_from=1)


def test_slim_blocks_keep_the_keys_and_values_of_their_text_and_nothing_else_of_it():
    t = teacher(4)
    made = rules.propose("uniform", t, {PATH: 4}, slim_from=0.5, protect={PATH: frozenset({3})})
    assert [span.drop for span in spans(made)] == [
        (),
        (),
        ("text.attn", "text.mlp", "text.modulation"),
        (),
    ]
    left = 1 - (plans.parameters(plans.identity(t), t) - plans.parameters(made, t)) / t.stacks[
        0
    ].block_parameters(2)
    assert left == pytest.approx(20 / 36, abs=0.01)  # of 36 D^2: 18 of the image, 2 of the text
    both = rules.propose("uniform", t, {PATH: 4}, slim_from=1, single_from=2)
    assert [(span.stream, bool(span.drop)) for span in spans(both)] == [
        (None, False),
        (None, True),
        ("single", False),
        ("single", False),
    ]
    single = StackInfo(path=PATH, kind="single", layouts=[qwen_block(8)], layout_of=[0] * 4)
    with refused(found="family dit", do="slim_from"):
        rules.propose(
            "uniform",
            Teacher(
                name="d",
                family="dit",
                class_name="DiTTransformer2DModel",
                outside=0,
                stacks=[single],
            ),
            {PATH: 2},
            slim_from=1,
        )


def test_a_budget_counts_the_single_blocks():
    t = teacher(12)
    made = rules.propose("uniform", t, budget=Budget(params=0.4), single_from=0.5)
    plain = rules.propose("uniform", t, budget=Budget(params=0.4))
    assert len(spans(made)) > len(spans(plain))
    assert plans.parameters(made, t) <= 0.4 * t.parameters


# --- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("params=0.5", Budget(params=0.5)),
        (0.25, Budget(params=0.25)),
        ("bytes=6GB@int4", Budget(bytes=6e9, precision="int4")),
        ("bytes=2GiB", Budget(bytes=2**31)),
        ("latency=0.5, params=0.9", Budget(latency=0.5, params=0.9)),
    ],
)
def test_a_budget_is_read_and_told(text, wanted):
    assert Budget.parse(text) == wanted
    assert Budget.parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "params",
        "params=2",
        "params=x",
        "bytes=6XB",
        "bytes=6GB@int3",
        "weight=3",
        "",
        "bytes=1.2.3GB",
    ],
)
def test_a_bad_budget_is_one_line(text):
    with refused(found=text, do="--budget "):
        Budget.parse(text)


@pytest.mark.parametrize("rule", ["uniform", "amber", "hierarchical"])
@pytest.mark.parametrize("text", ["params=0.5", "bytes=2.1GB@int8", "latency=0.45"])
def test_a_budget_is_met_from_below_and_a_block_more_would_break_it(rule, text):
    t, budget = teacher(12), Budget.parse(text)
    made = rules.propose(rule, t, sensitivity=sensitivity(12), budget=budget)
    assert budget.excess(made, t) == 0
    more = rules.propose(rule, t, {PATH: len(spans(made)) + 1}, sensitivity(12))
    assert budget.excess(more, t) > 0


def test_a_budget_that_no_plan_meets_is_one_line():
    for rule, found in (("uniform", "params=0.001"), ("hierarchical", "budget")):
        with refused(found=found, do="raise"):
            rules.propose(rule, teacher(6), sensitivity=sensitivity(6), budget=Budget(params=0.001))
    with refused(found="rule uniform", do="--keep or --budget"):
        rules.propose("uniform", teacher(6))


# --- predicted time -------------------------------------------------------------------------------


def test_time_is_a_blocks_share_where_all_are_alike_and_single_streams_save_no_time():
    t = teacher(12)
    half = plan([{"blocks": [2 * i, 2 * i + 1]} for i in range(6)])
    assert plans.predicted_latency(half, t) == pytest.approx(0.5)
    single = plan([{"blocks": b, "stream": "single"} for b in range(12)])
    # the text passes through the image's weights instead
    assert plans.predicted_latency(single, t) == pytest.approx(1, rel=1e-3)
    assert plans.parameters(single, t) < 0.51 * t.parameters


def test_work_counts_tokens_matrices_and_attention():
    """By hand, for a block of width 8 with 10 image and 4 text tokens: 10 matrices of attention and
    MLP a stream, AdaLN once.
    """
    t, d = teacher(1, d=8), 8
    own = 4 * d * d + 8 * d * d
    wanted = (10 + 4) * own + 2 * 6 * d * d + 2 * (10 + 4) ** 2 * d
    assert sum(plans.work(plan([{"blocks": 0}]), t, Tokens(10, 4)).values()) == wanted
    without = sum(
        plans.work(plan([{"blocks": 0, "drop": ["text.mlp"]}]), t, Tokens(10, 4)).values()
    )
    assert wanted - without == 4 * 8 * d * d
    blind = sum(plans.work(plan([{"blocks": 0, "drop": ["attn"]}]), t, Tokens(10, 4)).values())
    # query and output projections; keys and values stay
    assert wanted - blind == 10 * 2 * d * d + 2 * 10 * (10 + 4) * d


# --- the whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", ["uniform", "influence", "amber", "amber-hybrid", "hierarchical", "ppcl"]
)
def test_every_rule_takes_init_gain_and_protected_blocks_and_says_why(rule):
    t = teacher(12)
    row = rules.RULES[rule]
    scores = (
        cka_map(falling(12, {4}))
        if rule == "ppcl"
        else a_map({"drop": [1.0 + b % 5 for b in range(12)]}, row.metric or "")
    )
    given = scores if row.needs_map else None
    *_, last = rules.proposing(
        rule, t, {PATH: 7}, given, init="last", gain="length", protect={PATH: frozenset({5, 11})}
    )
    made, why = last.result.plan, last.result.why[PATH]
    assert len(spans(made)) == len(why) == 7 and all(why)
    assert {(s.init, s.gain) for s in spans(made) if len(s) > 1} <= {
        ("last", float(len(s))) for s in spans(made)
    }
    assert all(
        len(span) == 1 for span in spans(made) if {5, 11} & set(range(span.first, span.last + 1))
    )
    assert made.origin["rule"] == rule and made.origin["init"] == "last"
    assert Plan.parse(made.as_yaml(), "it") == made


def test_an_option_that_a_rule_does_not_have_is_refused():
    with refused(found="minutes for rule uniform", expected="init, gain"):
        rules.propose("uniform", teacher(6), {PATH: 3}, minutes=3)
    with refused(found="rule greedy", do="workbench plan"):
        rules.propose("greedy", teacher(6), {PATH: 3})


def test_plans_and_the_code_that_makes_single_blocks_agree_on_who_can():

    for family in FAMILIES.values():
        t = Teacher(
            name="t", family=family.name, class_name=family.transformer, outside=0, stacks=[]
        )
        for row in family.stacks:
            assert plans.can_single(t, row.path) == FAMILIES[family.name].can_single(row.path), (
                family.name,
                row.path,
            )


def test_every_rule_its_paper_and_every_option_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "plans.md").read_text()
    for name, rule in rules.RULES.items():
        assert f"`{name}`" in text and rule.paper in text, name
    assert all(f"| `{name}` |" in text for name in SETTINGS)
    assert all(
        f"`{name}`" in text or f"`-{name.rpartition('-')[2]}`" in text
        for name in recipes.RECIPES.names()
    )


def test_a_map_of_parts_alone_ranks_blocks_by_the_sum_of_their_parts():
    parts = [1.0, 2.0, 3.0, 0.1, 0.2, 4.0]
    table = a_map({"drop:attn": parts, "drop:mlp": parts})
    made = rules.propose("amber", teacher(6), {PATH: 4}, table)
    assert (
        kept(made)
        == kept(rules.propose("amber", teacher(6), {PATH: 4}, a_map({"drop": parts})))
        == [0, 1, 2, 5]
    )


def test_given_weights_on_the_command_line_are_lines_between_points():
    table = SensitivityMap(
        teacher="qwen",
        fingerprint="",
        family="qwenimage",
        rows=[
            Row(stack=PATH, block=block, edit="drop", timestep=time, score=score)
            for time, scores in ((1000.0, (3, 1)), (500.0, (1, 3)))
            for block, score in enumerate(scores)
        ],
    )
    assert plans.block_scores(table, "drop", "1000=1,0=0") == plans.block_scores(
        table, "drop", "high-noise"
    )
    assert plans.block_scores(table, "drop", "1000=1,500=0") == {(PATH, 0): 3.0, (PATH, 1): 1.0}
    with refused(found="'loud'", expected="1000=1,0=0"):
        plans.check_weighting("loud")
    with refused(found="'1000=much'", expected="timestep=weight"):
        plans.check_weighting("1000=much")
