"""What the selected student blocks are made of changes, and nothing else; what cannot be is refused
in one line.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.refusals import refused
from tests.ui import synthetic
from workbench import plans
from workbench.plans.editing import marks, span_fields
from workbench.records import BadInput, Plan

PATH = "transformer_blocks"
TEACHER = synthetic.teacher(8)
MERGED = marks.edit(plans.identity(TEACHER), TEACHER, {PATH: [2, 3, 4]}, "merge")


def spans(plan: Plan, path: str = PATH) -> list[dict]:
    return [span.as_yaml() for span in plan.stacks[path]]


def test_selecting_any_block_of_a_span_changes_its_student_block_alone():
    after = span_fields.change(
        MERGED, TEACHER, {PATH: [3]}, stream="single", init="first", gain=1.5
    )
    assert spans(after)[2] == {"blocks": [2, 4], "gain": 1.5, "stream": "single"}
    assert spans(after)[:2] + spans(after)[3:] == spans(MERGED)[:2] + spans(MERGED)[3:]
    assert plans.parameters(after, TEACHER) < plans.parameters(MERGED, TEACHER)


def test_every_change_can_be_taken_back():
    there = span_fields.change(
        MERGED, TEACHER, {PATH: [3]}, stream="single", init="last", gain=2, drop=["mlp"]
    )
    back = span_fields.change(
        there, TEACHER, {PATH: [3]}, stream="dual", init="mean", gain="length", restore=["mlp"]
    )
    assert spans(back) == spans(MERGED)


def test_slim_is_a_dual_block_that_only_reads_its_text_and_dual_gives_the_text_back():
    text = ["text.attn", "text.mlp", "text.modulation"]
    slim = span_fields.change(MERGED, TEACHER, {PATH: [0]}, stream="slim", drop=["attn"])
    assert set(spans(slim)[0]["drop"]) == {"attn", *text}
    assert span_fields.state(slim, TEACHER, {PATH: [0]}).stream == "slim"
    assert spans(
        span_fields.change(slim, TEACHER, {PATH: [0]}, stream="dual", restore=["attn"])
    ) == spans(MERGED)
    single = span_fields.change(slim, TEACHER, {PATH: [0]}, stream="single")
    assert spans(single)[0] == {"blocks": 0, "stream": "single", "drop": ["attn"]}
    assert spans(span_fields.change(single, TEACHER, {PATH: [0]}, stream="slim")) == spans(slim)


def test_a_single_stream_block_has_no_text_parts_to_drop():
    less = span_fields.change(MERGED, TEACHER, {PATH: [0]}, drop=["text.mlp", "attn"])
    single = span_fields.change(less, TEACHER, {PATH: [0]}, stream="single")
    assert spans(single)[0] == {"blocks": 0, "stream": "single", "drop": ["attn"]}
    assert not [
        part
        for part in span_fields.state(single, TEACHER, {PATH: [0]}).parts
        if part.startswith("text.")
    ]


def test_gain_length_is_each_spans_own_and_init_leaves_blocks_alone_as_they_are():
    after = span_fields.change(
        MERGED, TEACHER, {PATH: list(range(8))}, gain="length", init="middle"
    )
    assert [span.gain for span in after.stacks[PATH]] == [1, 1, 3, 1, 1, 1]
    assert [span.init for span in after.stacks[PATH]] == [
        "first",
        "first",
        "middle",
        "first",
        "first",
        "first",
    ]


def test_the_state_is_what_the_selection_has_in_common():
    plan = span_fields.change(MERGED, TEACHER, {PATH: [0, 1]}, drop=["mlp"])
    plan = span_fields.change(plan, TEACHER, {PATH: [1]}, drop=["attn"], stream="single")
    both = span_fields.state(plan, TEACHER, {PATH: [0, 1]})
    assert (both.count, both.stream, both.drop, both.gain, both.single) == (
        2,
        None,
        ("mlp",),
        "1",
        True,
    )
    assert span_fields.state(plan, TEACHER, {PATH: [3, 4]}).gain == "length"
    assert span_fields.state(plan, TEACHER, {PATH: []}) == span_fields.State()


def test_only_the_last_block_offers_what_only_it_has():
    assert "text.output" in span_fields.state(MERGED, TEACHER, {PATH: [7]}).parts
    assert "text.output" not in span_fields.state(MERGED, TEACHER, {PATH: [0]}).parts


def test_single_is_offered_where_a_plan_may_say_it():
    flux = synthetic.flux(3, 3)
    assert plans.can_single(flux, PATH) and not plans.can_single(flux, "single_transformer_blocks")
    after = span_fields.change(
        plans.identity(flux), flux, {PATH: [0], "single_transformer_blocks": [1]}, stream="single"
    )
    assert [span.stream for span in after.stacks["single_transformer_blocks"]] == [None] * 3


@pytest.mark.parametrize(
    ("blocks", "what", "field"),
    [
        ([], {"stream": "single"}, {"do": "on the map"}),
        ([9], {"stream": "single"}, {"found": "block 9", "expected": "0 to 7"}),
        ([1], {"stream": "triple"}, {"found": "'triple'", "expected": "dual, slim, single"}),
        ([1], {"init": "best"}, {"found": "'best'", "expected": "first, last, middle, mean"}),
        ([1], {"gain": "much"}, {"found": "gain 'much'"}),
        ([1], {"gain": -1}, {"found": "gain -1"}),
        ([1], {"gain": float("nan")}, {"found": "gain nan"}),
        ([1], {"drop": ["text.output"]}, {"found": "'text.output'"}),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(blocks, what, field):
    with refused(**field):
        span_fields.change(MERGED, TEACHER, {PATH: blocks}, **what)


PARTS = ["attn", "mlp", "text.attn", "text.mlp", "modulation", "text.modulation"]
CHANGE = st.fixed_dictionaries(
    {},
    optional={
        "stream": st.sampled_from(span_fields.STREAMS),
        "init": st.sampled_from(["first", "last", "middle", "mean"]),
        "gain": st.sampled_from([1, 2.5, "length"]),
        "drop": st.lists(st.sampled_from(PARTS), max_size=3, unique=True),
        "restore": st.lists(st.sampled_from(PARTS), max_size=3, unique=True),
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CHANGE, st.sets(st.integers(0, 7), min_size=1)), max_size=5))
def test_every_change_leaves_a_sound_plan_of_the_same_spans_or_is_refused(steps):
    plan = MERGED
    for what, blocks in steps:
        try:
            plan = span_fields.change(plan, TEACHER, {PATH: blocks}, **what)
        except BadInput:
            continue
        plans.check(plan, TEACHER)
        assert [span.blocks for span in plan.stacks[PATH]] == [
            span.blocks for span in MERGED.stacks[PATH]
        ]


# --- the rank of modulation -----------------------------------------------------------------------


LOW = plans.with_modulation(plans.identity(TEACHER), TEACHER, 8)
BOTH_PARTS = ["modulation", "text.modulation"]


def ranks(plan: Plan) -> list[int | None]:
    return [span.rank for span in plan.stacks[PATH]]


def test_a_rank_goes_to_the_selected_blocks_alone():
    after = span_fields.change(MERGED, TEACHER, {PATH: [0, 3]}, modulation=16)
    assert ranks(after) == [16, None, 16, None, None, None]
    assert spans(after)[2]["gain"] == 3, "what else it is made of stays"
    assert spans(span_fields.change(after, TEACHER, {PATH: [0, 3]}, modulation="plan")) == spans(
        MERGED
    )
    kept = span_fields.change(after, TEACHER, {PATH: [3]}, modulation="keep")
    assert ranks(kept) == [16] + [None] * 5
    assert span_fields.state(kept, TEACHER, {PATH: [3]}).modulation == "keep"


def test_a_form_offers_the_plans_rank_and_the_ranks_that_fit():
    state = span_fields.state(LOW, TEACHER, {PATH: [1, 2]})
    assert state.modulation == "plan" and state.no_modulation == ""
    assert state.modulations[0] == ("plan default (rank 8)", "plan")
    assert [value for _, value in state.modulations] == ["plan", "keep", "4", "8", "16", "32", "64"]
    mixed = span_fields.change(LOW, TEACHER, {PATH: [1]}, modulation=4)
    assert span_fields.state(mixed, TEACHER, {PATH: [1, 2]}).modulation is None
    odd = span_fields.change(LOW, TEACHER, {PATH: [1]}, modulation=12)
    assert ("rank 12", "12") in span_fields.state(odd, TEACHER, {PATH: [1]}).modulations
    narrow = synthetic.teacher(8, dim=32)
    offered = span_fields.state(plans.identity(narrow), narrow, {PATH: [1]}).modulations
    assert [value for _, value in offered] == ["plan", "keep", "4", "8", "16"], "below its width"


def test_dropping_a_blocks_modulation_takes_its_rank_and_restoring_brings_the_plans_back():
    for plan in (LOW, span_fields.change(LOW, TEACHER, {PATH: [1]}, modulation=4)):
        dropped = span_fields.change(plan, TEACHER, {PATH: [1]}, drop=BOTH_PARTS)
        assert ranks(dropped) == [8, None] + [8] * 6
        assert "dropped" in span_fields.state(dropped, TEACHER, {PATH: [1]}).no_modulation
        assert span_fields.state(dropped, TEACHER, {PATH: [1, 2]}).no_modulation == ""
        back = span_fields.change(dropped, TEACHER, {PATH: [1]}, restore=BOTH_PARTS)
        assert ranks(back) == [8] * 8


def test_families_and_ranks_that_cannot_be_are_refused():
    shared = synthetic.without_modulation(4)
    selection = {shared.stacks[0].path: [1]}
    whole = plans.identity(shared)
    assert "shared by all blocks" in span_fields.state(whole, shared, selection).no_modulation
    with refused(found="modulation '8'", expected="shared by all blocks"):
        span_fields.change(whole, shared, selection, modulation=8)
    for wrong in ("-1", "0", "much", "1.5"):
        with refused(found=repr(wrong), expected="a rank"):
            span_fields.change(MERGED, TEACHER, {PATH: [3]}, modulation=wrong)
    with refused(found="rank 128", expected="at most 127"):
        span_fields.change(MERGED, TEACHER, {PATH: [3]}, modulation=128)
