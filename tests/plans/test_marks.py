"""Editing by hand changes the spans it touches and no other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.refusals import refused
from tests.ui import synthetic
from workbench import plans, rules
from workbench.plans.editing import marks, offers, selection
from workbench.records import BadInput, Plan

PATH = "transformer_blocks"
TEACHER = synthetic.teacher(10)


def spans(plan: Plan) -> list[dict]:
    return [span.as_yaml() for span in plan.stacks[PATH]]


def edited(*steps: tuple[str, list[int]], start: Plan | None = None) -> Plan:
    plan = start or plans.identity(TEACHER)
    for mark, blocks in steps:
        plan = marks.edit(plan, TEACHER, {PATH: blocks}, mark)
    return plan


def test_drop_hands_the_place_to_the_block_before():
    assert spans(edited(("drop", [3, 4])))[2:4] == [{"blocks": [2, 4]}, {"blocks": 5}]


def test_dropping_block_0_starts_from_the_block_behind():
    assert spans(edited(("drop", [0])))[0] == {"blocks": [0, 1], "init": "last"}


def test_merge_makes_one_block_of_a_selected_run():
    assert {"blocks": [4, 6], "init": "mean", "gain": 3} in spans(edited(("merge", [4, 5, 6])))


def test_merge_of_one_block_takes_the_next_in_and_again():
    once = edited(("merge", [4]))
    assert {"blocks": [4, 5], "init": "mean", "gain": 2} in spans(once)
    assert {"blocks": [4, 6], "init": "mean", "gain": 3} in spans(
        edited(("merge", [4]), start=once)
    )
    assert {"blocks": [8, 9], "init": "mean", "gain": 2} in spans(edited(("merge", [9]))), (
        "the last merges with the one before"
    )


def test_runs_apart_merge_apart():
    assert edited(("merge", [1, 2, 5, 6])).depth() == {PATH: 8}


def test_keep_undoes_drop_and_merge_exactly():
    assert spans(edited(("drop", [3]), ("merge", [5, 6]), ("keep", [3, 5, 6]))) == spans(
        plans.identity(TEACHER)
    )


def test_an_edit_elsewhere_leaves_a_proposal_as_it_was():
    proposal = rules.propose("uniform", TEACHER, {PATH: 5}, init="mean", gain="length")
    after = spans(edited(("keep", [9]), start=proposal))
    assert after[:4] == spans(proposal)[:4]
    assert after[4:] == [{"blocks": 8}, {"blocks": 9}]
    assert marks.edit(proposal, TEACHER, {PATH: [9]}, "keep").origin["edited"] == "by hand"


def test_middle_starts_survive_edits_elsewhere():
    proposal = rules.propose("uniform", TEACHER, {PATH: 3}, init="middle")
    assert spans(edited(("keep", [0]), start=proposal))[-1] == spans(proposal)[-1]


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ([("drop", list(range(10)))], {"found": "of transformer_blocks", "do": "keep a block"}),
        (
            [("merge", [1, 2]), ("merge", [4, 5]), ("drop", [3])],
            {"found": "block 3", "do": "merge the run"},
        ),
        ([("drop", [99])], {"found": "block 99", "expected": "0 to 9"}),
        ([("paint", [1])], {"found": "'paint'", "expected": "keep, drop, merge"}),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(steps, field):
    with refused(**field):
        edited(*steps)


def marks_of(plan: Plan) -> list[str]:
    """The mark of each teacher block: kept alone, averaged with others, or dropped."""
    out = ["drop"] * 10
    for span in plan.stacks[PATH]:
        for block in span.source:
            out[block] = "merge" if len(span.source) > 1 else "keep"
    return out


def test_a_selection_with_gaps_merges_its_runs_and_leaves_single_blocks_alone():
    after = edited(("merge", [1, 2, 5, 7, 8]))
    assert marks_of(after) == ["merge" if at in (1, 2, 7, 8) else "keep" for at in range(10)]
    with refused(found="blocks 5, 7", expected="neighbouring", do="between"):
        edited(("merge", [5, 7]))


def test_a_run_takes_its_blocks_out_of_other_spans():
    after = edited(("merge", [3, 4, 5]), ("drop", [7]), ("merge", [5, 6, 7]))
    assert spans(after)[3:6] == [
        {"blocks": [3, 4], "init": "mean", "gain": 2},
        {"blocks": [5, 7], "init": "mean", "gain": 3},
        {"blocks": 8},
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(marks.MARKS), st.sets(st.integers(0, 9), min_size=1)), max_size=4
    ),
    st.sets(st.integers(0, 9), min_size=2),
)
def test_merging_a_selection_never_takes_a_block_that_was_not_selected(steps, blocks):
    plan = plans.identity(TEACHER)
    for mark, chosen in steps:
        try:
            plan = marks.edit(plan, TEACHER, {PATH: chosen}, mark)
        except BadInput:
            continue
    selected = selection.runs(blocks)
    grows = len(selected) == 1 and any(
        span.init == "mean" and [*range(span.first, span.last + 1)] == selected[0]
        for span in plan.stacks[PATH]
    )
    try:
        after = marks.edit(plan, TEACHER, {PATH: blocks}, "merge")
    except BadInput:
        return
    averaged = [[*span.source] for span in after.stacks[PATH] if len(span.source) > 1]
    if grows:
        return
    for run in selected:
        assert len(run) == 1 or run in averaged
    alone = set(range(10)) - {block for run in selected if len(run) > 1 for block in run}
    for block in alone:
        before, now = marks_of(plan)[block], marks_of(after)[block]
        assert before == now or (before, now) == ("merge", "keep")


# --- the nearest possible edit ---------------------------------------------------------------------


def offered(mark: str, blocks: list[int], *steps: tuple[str, list[int]]) -> list[str]:
    plan = edited(*steps)
    with pytest.raises(BadInput):
        marks.edit(plan, TEACHER, {PATH: blocks}, mark)
    found = offers.offers(plan, TEACHER, {PATH: blocks}, mark)
    for offer in found:
        assert marks.edit(plan, TEACHER, offer.selection, offer.mark) != plan
    return [offer.label for offer in found]


def test_where_an_edit_is_refused_the_nearest_ones_are_offered():
    assert offered("drop", [*range(10)]) == ["Drop 1-9", "Drop 0-8"]
    assert offered("merge", [2, 5]) == ["Merge 2-5", "Merge 5", "Merge 2"]
    assert offered("drop", [3], ("merge", [1, 2]), ("merge", [4, 5])) == ["Merge 1-3", "Merge 3-5"]
    assert offered("drop", [4], ("merge", [2, 3, 4, 5, 6])) == ["Merge 2-4", "Merge 4-6"]


def test_offers_say_the_stack_where_there_are_several():
    flux = synthetic.flux(6, 4)
    whole = {PATH: [*range(6)], "single_transformer_blocks": [1]}
    found = offers.offers(plans.identity(flux), flux, whole, "drop")
    assert found[0].label == f"Drop 1-5 of {PATH}; 1 of single_transformer_blocks"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(marks.MARKS), st.sets(st.integers(0, 9), min_size=1)), max_size=6
    )
)
def test_every_edit_leaves_a_sound_plan_or_is_refused(steps):
    plan = plans.identity(TEACHER)
    for mark, blocks in steps:
        try:
            plan = marks.edit(plan, TEACHER, {PATH: blocks}, mark)
        except BadInput:
            continue
        plans.check(plan, TEACHER)
        if mark == "keep":
            assert blocks <= {b for s in plan.stacks[PATH] if len(s.source) == 1 for b in s.source}
        if mark == "drop":
            assert not blocks & {b for s in plan.stacks[PATH] for b in s.source}
