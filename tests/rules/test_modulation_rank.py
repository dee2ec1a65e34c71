"""Rules with `modulation_rank`: budgets buy more blocks, protected blocks stay in full."""

from __future__ import annotations

import random

import pytest

from tests.plans.qwen import teacher
from tests.refusals import refused
from workbench import plans, rules
from workbench.records import Modulation, Plan, Span, Teacher
from workbench.rules import Budget, swaps
from workbench.rules.base import Request

PATH = "transformer_blocks"
RANK = 8


def block_parameters(t: Teacher) -> tuple[int, int]:
    """(in full, at rank 8) of a block, counted by hand from the shapes of its linears."""
    layout = t.stack(PATH).tensors(0)
    full = 0
    saved = 0
    for name, shape in layout.items():
        count = 1
        for side in shape:
            count *= side
        full += count
        if name in ("img_mod.1.weight", "txt_mod.1.weight"):
            rows, columns = shape
            saved += count - RANK * (rows + columns)
    return full, full - saved


def test_a_budget_buys_as_many_more_blocks_as_the_factors_save():
    t = teacher(60)
    full, factored = block_parameters(t)
    budget = 0.5 * t.parameters
    for rank, size in ((None, full), (RANK, factored)):
        made = rules.propose("uniform", t, budget=Budget(params=0.5), modulation_rank=rank)
        kept = len(made.stacks[PATH])
        assert kept == int((budget - t.outside) // size)
        assert plans.parameters(made, t) == t.outside + kept * size


def test_every_rule_takes_a_rank():
    for name, row in rules.RULES.items():
        assert "modulation_rank" in row.options, name


def test_protected_blocks_keep_their_modulation():
    t = teacher(8)
    made = rules.propose(
        "uniform", t, {PATH: 8}, modulation_rank=RANK, protect={PATH: frozenset({3})}
    )
    assert [span.rank for span in made.stacks[PATH]] == [8, 8, 8, None, 8, 8, 8, 8]


def test_a_dropped_modulation_is_not_factored():
    t = teacher(8)
    made = rules.propose("uniform", t, {PATH: 8}, modulation_rank=RANK, slim_from=4)
    layout = t.stack(PATH).tensors(5)
    row = plans.family_of(t).stack(PATH)
    span = made.stacks[PATH][5]
    left = row.student_layout(layout, span.stream, span.drop, span.rank)
    assert "img_mod.1.up.weight" in left and not any(name.startswith("txt_mod") for name in left)


def test_auto_is_the_rank_that_the_weights_say_and_the_plan_names_it():
    t = teacher(8)
    made = rules.propose("uniform", t, {PATH: 8}, modulation_rank="auto", smallest_rank=lambda: 5)
    assert {span.rank for span in made.stacks[PATH]} == {5}
    assert made.origin["modulation_rank"] == 5


def test_auto_without_weights_is_refused():
    with refused(found="auto", do="--modulation-rank 8"):
        rules.propose("uniform", teacher(8), {PATH: 8}, modulation_rank="auto")


@pytest.mark.parametrize("rank", [0, -3, True, 2.5, "some"])
def test_what_is_no_rank_is_refused(rank: object):
    with refused(found=repr(rank), do="--modulation-rank"):
        rules.propose("uniform", teacher(8), {PATH: 8}, modulation_rank=rank)


def test_greedy_factors_single_blocks_where_that_is_the_cheapest_edit():
    """Factoring costs nothing by this measure and joining costs 1: all blocks are factored first."""
    t = teacher(8)
    full, factored = block_parameters(t)

    def joins(plan: Plan) -> float:
        return float(8 - len(plan.stacks[PATH]))

    limit = (t.outside + 6 * factored + 2 * full) / t.parameters
    made = rules.propose(
        "greedy", t, budget=Budget(params=limit), edits="join,modulation", measure=joins
    )
    assert len(made.stacks[PATH]) == 8
    assert sorted(span.rank or 0 for span in made.stacks[PATH]) == [0, 0] + 6 * [8]
    smaller = rules.propose(
        "greedy", t, budget=Budget(params=limit / 2), edits="join,modulation", measure=joins
    )
    assert {span.rank for span in smaller.stacks[PATH]} == {8}


def test_greedy_leaves_modulation_alone_unless_asked():
    made = rules.propose("greedy", teacher(8), budget=Budget(params=0.6), measure=lambda plan: 1.0)
    assert not any(span.rank for span in made.stacks[PATH])


def test_search_exchanges_the_modulation_of_two_blocks():
    spans = [Span(blocks=(0, 0), modulation=Modulation(rank=8)), Span(blocks=(1, 1))]
    request = Request(teacher(2))
    for seed in range(20):
        swapped = swaps.exchange(request, PATH, list(spans), random.Random(seed))
        assert swapped is not None
        assert sorted(span.rank or 0 for span in swapped) == [0, 8]
