"""Plans whose modulation is in two factors: what is written, what is counted, what is refused."""

from __future__ import annotations

from tests.plans.qwen import D, plan, sensitivity, teacher
from tests.refusals import refused
from workbench import plans
from workbench.families import FAMILIES
from workbench.plans.editing.marks import edit
from workbench.records import Modulation, Plan, Span, yamlfile

STACK = "transformer_blocks"
EIGHT = {"modulation": {"rank": 8}}


def with_default(spans: list[dict], rank: int = 8) -> Plan:
    data = plan(spans).as_yaml() | {"modulation": {"rank": rank}}
    return Plan.parse(data, "test")


def test_spans_that_say_nothing_get_the_plans_modulation() -> None:
    spans = with_default(
        [{"blocks": 0}, {"blocks": 1, "modulation": "keep"}, {"blocks": 2, **EIGHT}], rank=4
    ).stacks[STACK]
    assert [span.rank for span in spans] == [4, None, 8]
    assert [span.plain for span in spans] == [False, True, False]


def test_the_plans_modulation_is_written_once() -> None:
    one = with_default([{"blocks": 0}, {"blocks": 1, "modulation": "keep"}, {"blocks": 2}])
    written = one.as_yaml()
    assert written["modulation"] == {"rank": 8}
    assert written["stacks"][STACK] == [
        {"blocks": 0},
        {"blocks": 1, "modulation": "keep"},
        {"blocks": 2},
    ]
    assert Plan.parse(yamlfile.parse(yamlfile.dump(written)), "test") == one
    assert Plan.parse(one.model_dump(mode="json"), "test") == one


def test_parameters_of_qwen_image_are_exact() -> None:
    """Per linear d x 6d becomes d x k + k x 6d; counted by hand."""
    whole = plan([{"blocks": b} for b in range(60)])
    low = plans.with_modulation(whole, teacher(), 8)
    saved = 60 * 2 * (6 * D * D - 8 * D - 8 * 6 * D)
    assert plans.parameters(whole, teacher()) == 20_430_401_088
    assert plans.parameters(low, teacher()) == 20_430_401_088 - saved == 13_656_272_448
    assert plans.memory(plans.parameters(low, teacher()))["bf16"] == 2 * 13_656_272_448


def test_a_part_that_cuts_modulation_rows_cuts_those_of_the_second_factor() -> None:
    one = Span(blocks=(0, 0), drop=("text.output",), modulation=Modulation(rank=8))
    row = FAMILIES["qwenimage"].stack(STACK)
    layout = row.student_layout(teacher(1).stack(STACK).tensors(0), None, one.drop, one.rank)
    assert layout["txt_mod.1.down.weight"] == [8, D]
    assert layout["txt_mod.1.up.weight"] == [2 * D, 8]
    assert layout["txt_mod.1.up.bias"] == [2 * D]
    assert layout["img_mod.1.up.weight"] == [6 * D, 8]


def test_a_single_stream_block_has_the_image_streams_factors() -> None:
    row = FAMILIES["qwenimage"].stack(STACK)
    layout = row.student_layout(teacher(1).stack(STACK).tensors(0), "single", (), 8)
    assert [name for name in layout if "mod" in name] == [
        "img_mod.1.down.weight",
        "img_mod.1.up.weight",
        "img_mod.1.up.bias",
    ]


def test_no_speed_is_promised() -> None:
    whole = plan([{"blocks": b} for b in range(60)])
    low = plans.with_modulation(whole, teacher(), 8)
    assert plans.predicted_latency(low, teacher()) == 1


def test_its_term_of_the_predicted_error_is_the_maps_column() -> None:
    low = plans.with_modulation(plan([{"blocks": b} for b in range(3)]), teacher(3), 8)
    scores = sensitivity(3, [1.0, 2.0, 4.0], edit="modulation:rank=8")
    assert plans.predicted_error(low, scores).value == 7
    unknown = plans.predicted_error(low, sensitivity(3))
    assert unknown.value is None and unknown.unknown_edits == ["modulation:rank=8"]
    assert unknown.command.endswith("--edits modulation:rank=8 --metric prediction")


def test_refusals_name_what_is_wrong() -> None:
    with refused(found="rank 3072", expected="3071"):
        plans.check(plan([{"blocks": 0, "modulation": {"rank": 3072}}]), teacher(1))
    dropped = {"blocks": 0, "drop": ["modulation", "text.modulation"], **EIGHT}
    with refused(found="rank 8", expected="dropped", do="keep"):
        plans.check(plan([dropped]), teacher(1))
    with refused(found="rank 4000", expected="3071"):
        plans.with_modulation(plan([{"blocks": 0}]), teacher(1), 4000)


def test_one_linear_may_be_dropped_and_the_other_factored() -> None:
    one = {"blocks": 0, "drop": ["text.modulation"], **EIGHT}
    plans.check(plan([one]), teacher(1))


def test_the_plans_default_does_not_apply_to_a_block_without_its_modulation() -> None:
    parts = ["modulation", "text.modulation"]
    read = with_default([{"blocks": 0, "drop": parts}, {"blocks": 1}])
    sound = plans.check(read, teacher(2))
    assert [span.rank for span in sound.stacks[STACK]] == [None, 8]
    assert sound.as_yaml()["stacks"][STACK][0] == {
        "blocks": 0,
        "drop": parts,
        "modulation": "keep",
    }
    bare = plan([{"blocks": 0, "drop": parts, "modulation": "keep"}, {"blocks": 1, **EIGHT}])
    assert plans.parameters(read, teacher(2)) == plans.parameters(bare, teacher(2))
    explicit = with_default([{"blocks": 0, "drop": parts, "modulation": {"rank": 4}}])
    with refused(found="transformer_blocks[0]: modulation of rank 4", expected="dropped"):
        plans.check(explicit, teacher(1))


def test_a_default_for_a_single_stream_block_needs_only_its_one_linear_dropped() -> None:
    one = with_default([{"blocks": 0, "stream": "single", "drop": ["modulation"]}])
    assert plans.check(one, teacher(1)).stacks[STACK][0].rank is None


def test_marks_keep_the_plans_modulation() -> None:
    low = plans.with_modulation(plan([{"blocks": b} for b in range(6)]), teacher(6), 8)
    for mark in ("drop", "merge"):
        edited = edit(low, teacher(6), {STACK: [2, 3]}, mark)
        assert {span.rank for span in edited.stacks[STACK]} == {8}, mark
    back = edit(edited, teacher(6), {STACK: [2, 3]}, "keep")
    assert [span.rank for span in back.stacks[STACK]] == [8] * 6


def test_composed_plans_keep_the_last_rank() -> None:
    low = plans.with_modulation(plan([{"blocks": b} for b in range(4)]), teacher(4), 8)
    lower = plan([{"blocks": [0, 1], "modulation": {"rank": 4}}, {"blocks": [2, 3]}])
    composed = plans.compose(lower, low)
    assert composed is not None
    assert [span.rank for span in composed.stacks[STACK]] == [4, 8]


def test_the_picture_names_the_rank() -> None:
    assert ">r8<" in plans.picture(plan([{"blocks": 0, **EIGHT}]), teacher(1))
