"""Records: JSON and YAML in and out, one clear line for every fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.refusals import refused
from workbench.records import BadInput, DistillSpec, Plan, SensitivityMap, Span

PLAN = """\
# made on a Monday
teacher: demo   # the bundled one
family: qwenimage
origin: {rule: amber, keep: 2}
stacks:
  transformer_blocks:
    # the first block is vital
    - {blocks: 0}
    - {blocks: [1, 3], init: mean, gain: 3}  # three do the work of one
    # nothing after this
"""


def plan_file(tmp_path, text=PLAN):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_plan_round_trip_is_lossless_and_leaves_the_text_alone(tmp_path):
    path = plan_file(tmp_path)
    Plan.load(path).save(path)
    assert path.read_text() == PLAN


def test_comments_survive_an_edit(tmp_path):
    path = plan_file(tmp_path)
    plan = Plan.load(path)
    spans = [Span(blocks=(0, 0)), Span(blocks=(1, 2)), Span(blocks=(3, 3))]
    edited = plan.model_copy(update={"stacks": {"transformer_blocks": spans}})
    edited.save(path)
    text = path.read_text()
    assert Plan.load(path) == edited
    for comment in (
        "# made on a Monday",
        "# the bundled one",
        "# the first block is vital",
        "# three do the work of one",
        "# nothing after this",
    ):
        assert text.count(comment) == 1
    assert text.index("# the first block is vital") < text.index("blocks: 0")


def test_hash_sign_inside_a_name_is_no_comment(tmp_path):
    path = plan_file(tmp_path, PLAN.replace("teacher: demo ", "teacher: './a #b' "))
    plan = Plan.load(path)
    assert plan.teacher == "./a #b"
    plan.model_copy(update={"family": "other"}).save(path)
    assert Plan.load(path).teacher == "./a #b"
    assert "# the bundled one" in path.read_text()


@pytest.mark.parametrize(
    "text, part",
    [
        (PLAN.replace("blocks: 0", "blocks: zero"), "zero"),
        (PLAN.replace("[1, 3]", "[3, 1]"), "[3, 1]"),
        (PLAN.replace("init: mean", "init: median"), "init"),
        (PLAN.replace("gain: 3", "gain: -3"), "gain"),
        (PLAN.replace("family: qwenimage\n", ""), "family"),
        (PLAN.replace("- {blocks: 0}", "- {blocks: 0"), "YAML"),
        ("", "plan"),
        ("- 1", "plan"),
        (PLAN.replace("blocks: 0}", "blocks: 0, colour: red}"), "colour"),
        (PLAN.replace("blocks: 0}", "blocks: true}"), "True"),
    ],
)
def test_a_bad_plan_gives_one_line_that_names_the_fault(tmp_path, text, part):
    with pytest.raises(BadInput) as caught:
        Plan.load(plan_file(tmp_path, text))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "plan.yaml" in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with refused(found="none.yaml", expected="file"):
        Plan.load(tmp_path / "none.yaml")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with refused(found="b.json", expected="UTF-8"):
        SensitivityMap.load(tmp_path / "b.json")


def test_equal_records_share_a_digest_and_different_ones_do_not():
    one = Span(blocks=(0, 1))
    assert one.digest == Span(blocks=[0, 1]).digest
    assert one.digest != Span(blocks=(0, 2)).digest


def test_a_spec_with_a_loss_that_cannot_reach_the_weights_is_refused():
    with refused(found="stages.0", expected="'span' with losses output"):
        DistillSpec.parse(
            {"stages": [{"name": "a", "gradient": "span", "losses": {"output": {}}}]}, "spec"
        )


def test_a_spec_round_trips_through_yaml(tmp_path):
    spec = DistillSpec.parse(
        {"stages": [{"name": "a", "lr": 0.002, "train": {"transformer_blocks": [1, 2]}}]}, "spec"
    )
    assert DistillSpec.load(spec.save(tmp_path / "spec.yaml")) == spec


def test_comments_survive_beside_values_of_odd_blanks(tmp_path: Path):
    file = tmp_path / "plan.yaml"
    one = Plan(
        teacher="\xa0", family="qwenimage", stacks={"transformer_blocks": [Span(blocks=(0, 0))]}
    )
    file.write_text("# head\n" + one.save(file).read_text("utf-8"), "utf-8")
    Plan(teacher="\xa0", family="flux", stacks=one.stacks).save(file)
    assert file.read_text("utf-8").startswith("# head\n")
