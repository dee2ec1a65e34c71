"""Greedy and search: by a measure made up for the purpose, and by a real one on a tiny model."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.plans.qwen import teacher
from tests.refusals import refused
from tests.rules.test_measuring import calls
from workbench import models, plans, rules
from workbench.records import Plan, Span
from workbench.rules import Budget
from workbench.sensitivity.measured_error import PlanMeter

PATH = "transformer_blocks"
WEIGHT = [9.0, 1, 1, 5, 1, 4, 2, 8]


def made_up(plan: Plan) -> float:
    """What is lost: each block that is in no source by its weight, long spans more; a mean loses
    half of each.
    """
    lost = 0.0
    for span in plan.stacks[PATH]:
        blocks = range(span.first, span.last + 1)
        gone = [b for b in blocks if b not in span.source] or (
            list(blocks) if len(span) > 1 else []
        )
        lost += (
            sum(WEIGHT[b] for b in gone)
            * (0.5 if span.init == "mean" else 1)
            * (1.5 if span.gain > 1 and len(span) > 2 else 1)
        )
        lost += 0.3 * len(span.drop) + (2 if span.stream else 0)
    return lost


def test_greedy_makes_the_cheapest_edit_first_and_measures_what_is_left():
    def by_hand(depth: int) -> float:
        """The same by trying every join of every plan, round after round."""
        spans = plans.identity(teacher(8)).stacks[PATH]
        while len(spans) > depth:
            joins = [
                [
                    *spans[:i],
                    Span(blocks=(spans[i].first, spans[i + 1].last), init=init, gain=gain),
                    *spans[i + 2 :],
                ]
                for i in range(len(spans) - 1)
                for init in ("first", "last", "mean")
                for gain in (1.0, float(len(spans[i]) + len(spans[i + 1])))
            ]
            spans = min(
                joins,
                key=lambda one: made_up(Plan(teacher="", family="qwenimage", stacks={PATH: one})),
            )
        return made_up(Plan(teacher="", family="qwenimage", stacks={PATH: spans}))

    for depth in (7, 6, 4):
        made = rules.propose(
            "greedy", teacher(8), {PATH: depth}, measure=made_up, edits="join", shortlist=0
        )
        assert len(made.stacks[PATH]) == depth and made_up(made) == by_hand(depth)


def test_greedy_with_blocks_and_a_budget_joins_first_and_edits_the_rest_after_what_follows_the_rule():
    t = teacher(8)
    joined = rules.propose("greedy", t, {PATH: 5}, measure=made_up, edits="join")
    made = rules.propose(
        "greedy",
        t,
        {PATH: 5},
        budget=Budget(params=0.3),
        slim_from=1,
        edits="join,parts",
        measure=made_up,
    )
    slimmed = rules.propose("greedy", t, {PATH: 5}, slim_from=1, edits="join", measure=made_up)
    assert plans.parameters(made, t) <= 0.3 * t.parameters < plans.parameters(slimmed, t)
    assert [(s.blocks, s.init, s.gain) for s in made.stacks[PATH]] == [
        (s.blocks, s.init, s.gain) for s in joined.stacks[PATH]
    ]
    assert all("text.mlp" in span.drop for span in made.stacks[PATH][1:]) and any(
        "mlp" in span.drop for span in made.stacks[PATH]
    )


def test_greedy_leaves_the_text_streams_whole_that_it_is_asked_to():
    t = teacher(8)
    options = {"measure": made_up, "edits": "join,slim,single,parts", "budget": Budget(params=0.3)}
    free = rules.propose("greedy", t, **options).stacks[PATH]
    whole = rules.propose("greedy", t, whole_text=2, **options).stacks[PATH]
    assert any(name.startswith("text.") for name in free[0].drop)
    for span in whole[:2]:
        assert span.stream is None
        assert not any(name.startswith("text.") for name in span.drop)
    assert any(len(span) > 1 for span in whole), "they are joined all the same"
    assert any(name.startswith("text.") for span in whole[2:] for name in span.drop)


def test_greedy_with_a_longest_span_makes_longer_ones_only_where_the_depth_asks_for_them():
    unbound = rules.propose(
        "greedy",
        teacher(8),
        {PATH: 5},
        measure=lambda plan: made_up(plan) / 10 ** max(map(len, plan.stacks[PATH])),
    )
    assert max(map(len, unbound.stacks[PATH])) == 4, "the measure likes long spans"
    for depth, most in ((5, 2), (4, 2), (3, 3), (1, 8)):
        made = rules.propose(
            "greedy",
            teacher(8),
            {PATH: depth},
            longest=2,
            edits="join",
            measure=lambda plan: made_up(plan) / 10 ** max(map(len, plan.stacks[PATH])),
        )
        assert len(made.stacks[PATH]) == depth and max(map(len, made.stacks[PATH])) <= most


def test_greedy_with_a_margin_starts_otherwise_only_where_it_adds_that_much_less():
    def nearer_by(times: float):
        return lambda plan: sum(
            1 if (span.init, span.gain) == ("first", 1) else 1 / times
            for span in plan.stacks[PATH]
            if len(span) > 1
        )

    def starts(times: float, **options: object) -> set[tuple[str, float]]:
        made = rules.propose(
            "greedy",
            teacher(8),
            {PATH: 6},
            measure=nearer_by(times),
            edits="join",
            longest=2,
            **options,
        )
        return {(span.init, span.gain) for span in made.stacks[PATH] if len(span) > 1}

    assert ("first", 1.0) not in starts(1.5), "by error alone"
    assert starts(1.5, margin=2) == {("first", 1.0)}
    assert ("first", 1.0) not in starts(2.5, margin=2)
    with refused(found="margin 0.5", expected="1 or more"):
        starts(1.5, margin=0.5)
    assert starts(1.5, margin=2, init="mean", gain=1) == {("mean", 1.0)}, (
        "what was asked for is not doubted"
    )


def test_greedy_with_a_shortlist_of_all_is_greedy():
    for size in (0, 1000):
        made = rules.propose("greedy", teacher(8), {PATH: 4}, measure=made_up, shortlist=size)
        assert (
            made.stacks
            == rules.propose("greedy", teacher(8), {PATH: 4}, measure=made_up, shortlist=0).stacks
        )


def test_greedy_takes_parts_where_they_cost_least_and_only_as_many_as_needed():
    t = teacher(8)
    made = rules.propose("greedy", t, budget=Budget(params=0.9), measure=made_up)
    assert any(span.drop for span in made.stacks[PATH])
    assert plans.parameters(made, t) <= 0.9 * t.parameters
    joined = rules.propose("greedy", t, budget=Budget(params=0.9), measure=made_up, edits="join")
    assert not any(span.drop or span.stream for span in joined.stacks[PATH])
    assert made_up(made) <= made_up(joined)


def test_greedy_tells_its_way_and_its_reasons():
    *progress, last = rules.proposing("greedy", teacher(8), {PATH: 5}, measure=made_up)
    assert [p.step for p in progress] == sorted(p.step for p in progress)
    assert progress[-1].metrics["error"] == made_up(last.result.plan)
    assert any("the least per saving of" in why for why in last.result.why[PATH])


def test_greedy_that_runs_out_of_edits_is_one_line():
    alone = {PATH: frozenset(range(8))}
    with refused(found="0.500 of the teacher over", do="--edits"):
        rules.propose(
            "greedy", teacher(8), budget=Budget(params=0.5), measure=made_up, protect=alone
        )


def test_search_improves_a_plan_keeps_its_size_and_is_the_same_every_time():
    t = teacher(8)
    start = rules.propose("uniform", t, {PATH: 5}, gain=1)
    runs = [
        rules.propose("search", t, {PATH: 5}, measure=made_up, start=start, tries=150)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert made_up(runs[0]) < made_up(start)
    assert len(runs[0].stacks[PATH]) == 5
    assert plans.parameters(runs[0], t) <= plans.parameters(start, t)
    with refused(found="0.125 of the teacher"):
        rules.propose("search", t, {PATH: 4}, measure=made_up, start=start, tries=5)


def test_search_leaves_what_is_protected_and_what_was_asked_for():
    t, alone = teacher(8), {PATH: frozenset({3})}
    start = rules.propose("uniform", t, {PATH: 5}, protect=alone, init="mean", gain="length")
    made = rules.propose(
        "search",
        t,
        {PATH: 5},
        measure=made_up,
        start=start,
        tries=100,
        protect=alone,
        init="mean",
        gain="length",
    )
    assert any(span.blocks == (3, 3) for span in made.stacks[PATH])
    assert {(s.init, s.gain) for s in made.stacks[PATH] if len(s) > 1} <= {
        ("mean", float(len(s))) for s in made.stacks[PATH]
    }


def test_measured_on_a_model_greedy_beats_even_spans_and_search_is_no_worse():
    model = tiny.tiny_transformer(6).double()
    described = models.describe_module(model)
    meter = PlanMeter(model, described, calls())
    keep = {PATH: 4}
    given = {"measure": meter.error, "settle": meter.settle}
    greedy = rules.propose("greedy", described, keep, edits="join", **given)
    even = rules.propose("uniform", described, keep)
    assert meter.error(greedy) <= meter.error(even)
    better = rules.propose("search", described, keep, start=greedy, tries=20, **given)
    assert meter.error(better) <= meter.error(greedy)


def test_greedy_mixes_all_edits_on_a_model_and_the_free_cut_costs_nothing():
    model = tiny.tiny_transformer(4).double()
    described = models.describe_module(model)
    meter = PlanMeter(model, described, calls())
    given = {"measure": meter.error, "settle": meter.settle}
    share = (
        1
        - plans.free_cuts(plans.identity(described), described)[0].parameters / described.parameters
    )
    free = rules.propose("greedy", described, budget=Budget(params=share), **given)
    assert free.stacks[PATH][-1].drop == ("text.output",) and meter.error(free) == pytest.approx(
        0, abs=1e-20
    )
    small = rules.propose("greedy", described, budget=Budget(params=0.5), shortlist=0, **given)
    joined = rules.propose(
        "greedy", described, budget=Budget(params=0.5), shortlist=0, edits="join", **given
    )
    assert plans.parameters(small, described) <= 0.5 * described.parameters
    assert meter.error(small) <= meter.error(joined)
    assert {s.stream for s in small.stacks[PATH]} != {None} or any(
        s.drop for s in small.stacks[PATH]
    )
