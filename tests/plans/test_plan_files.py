"""Plan files: what is written is read again, comments stay, the schema knows what the program
knows, differences in words.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plans.qwen import plan
from workbench import plans
from workbench.plans.schema import schema
from workbench.records import BadInput, Modulation, Plan, Span, yamlfile

PUBLISHED = Path(__file__).parents[2] / "docs" / "plan.schema.json"
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12
)

NUMBERS = st.integers(-(2**63), 2**63 - 1)


@st.composite
def a_plan(draw: st.DrawFn) -> Plan:
    """Any plan: every field of every span, any words in the origin."""
    stacks = {}
    for path in draw(
        st.lists(
            st.sampled_from(["transformer_blocks", "single_transformer_blocks"]),
            min_size=1,
            unique=True,
        )
    ):
        depth = draw(st.integers(1, 12))
        cuts = [*sorted({0, *draw(st.lists(st.integers(1, depth), max_size=6))} - {depth}), depth]
        stacks[path] = [
            Span(
                blocks=(a, b - 1),
                init=draw(st.sampled_from(["first", "last", "middle", "mean"])),
                gain=draw(st.sampled_from([1.0, 2.0, 0.5, 1.7, 1e-3])),
                stream=draw(st.sampled_from([None, "single", "dual"])),
                drop=tuple(
                    draw(st.lists(st.sampled_from(["attn", "text.mlp", "mlp"]), unique=True))
                ),
                modulation=draw(st.sampled_from([None, "keep", Modulation(rank=8)])),
            )
            for a, b in pairwise(cuts)
        ]
    values = st.one_of(WORDS, NUMBERS, st.booleans(), st.none(), st.lists(NUMBERS, max_size=3))
    # names of options
    origin = draw(
        st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True), values, max_size=4)
    )
    return Plan(
        teacher=draw(WORDS.filter(bool)),
        family="qwenimage",
        origin=origin,
        stacks=stacks,
        modulation=draw(st.sampled_from([None, Modulation(rank=4), Modulation(rank=8)])),
    )


@settings(deadline=None, max_examples=30)
@given(one=a_plan(), data=st.data())
def test_plans_read_and_write_losslessly_and_comments_survive(
    one: Plan, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    file = tmp_path_factory.mktemp("plans") / "plan.yaml"
    assert Plan.load(one.save(file)) == one
    lines = file.read_text().splitlines()
    at = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=3, unique=True))
    marked = [f"{line}  # note {i}" if i in at else line for i, line in enumerate(lines)]
    file.write_text("# head\n" + "\n".join(marked) + "\n# tail\n")
    assert Plan.load(file) == one
    before = file.read_text()
    one.save(file)
    assert file.read_text() == before  # the same plan: not a byte changes
    path = next(iter(one.stacks))
    first = one.stacks[path][0]
    other = one.model_copy(
        update={
            "stacks": {
                **one.stacks,
                path: [first.model_copy(update={"gain": 3.0}), *one.stacks[path][1:]],
            }
        }
    )
    other.save(file)
    assert Plan.load(file) == other
    assert (
        all(f"# note {i}" in file.read_text() for i in at)
        and "# head" in file.read_text()
        and "# tail" in file.read_text()
    )


def test_the_published_schema_is_the_programs_own():
    assert json.loads(PUBLISHED.read_text()) == schema(), (
        "run: python -m workbench.plans.schema > docs/plan.schema.json"
    )
    jsonschema.Draft7Validator.check_schema(schema())


@settings(deadline=None, max_examples=30)
@given(one=a_plan())
def test_every_plan_that_is_written_fits_the_schema(one: Plan):
    jsonschema.validate(yamlfile.parse(yamlfile.dump(one.as_yaml())), schema())


@pytest.mark.parametrize(
    "span",
    [
        {"blocks": -1},
        {"blocks": [1, 2, 3]},
        {"blocks": 0, "init": "centre"},
        {"blocks": 0, "gain": 0},
        {"blocks": 0, "stream": "both"},
        {"blocks": 0, "drops": []},
        {"blocks": "1"},
        {"blocks": 0, "modulation": {"rank": 0}},
        {"blocks": 0, "modulation": "none"},
        {},
    ],
)
def test_what_the_program_refuses_the_schema_refuses(span: dict):
    data = {"teacher": "demo", "family": "qwenimage", "stacks": {"transformer_blocks": [span]}}
    with pytest.raises(BadInput):
        Plan.parse(data, "it")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


# --- differences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, words",
    [
        ([{"blocks": 0}, {"blocks": 1}], [{"blocks": 0}, {"blocks": 1}], []),
        (
            [{"blocks": 0}, {"blocks": 1}],
            [{"blocks": [0, 1], "init": "mean", "gain": 2}],
            ["2 blocks -> 1", "blocks 0-1: were 2 kept, now 0-1 in one (init mean, gain 2)"],
        ),
        (
            [{"blocks": 0}, {"blocks": 1}, {"blocks": 2}],
            [{"blocks": 0}, {"blocks": 1, "stream": "single"}, {"blocks": 2, "stream": "single"}],
            ["blocks 1-2: stream as in the teacher -> single"],
        ),
        (
            [
                {"blocks": 0},
                {"blocks": 1, "drop": ["mlp"]},
                {"blocks": 2, "drop": ["mlp"]},
                {"blocks": 3},
            ],
            [{"blocks": [0, 3]}],
            [
                "4 blocks -> 1",
                "blocks 0-3: were 0 + 1-2 (without mlp) + 3, now 0-3 in one (init first)",
            ],
        ),
        (
            [{"blocks": 0, "drop": ["mlp"]}],
            [{"blocks": 0, "drop": ["text.mlp"]}],
            ["block 0: drops text.mlp, keeps mlp again"],
        ),
        (
            [{"blocks": 0}, {"blocks": 1}],
            [{"blocks": b, "modulation": {"rank": 8}} for b in (0, 1)],
            ["blocks 0-1: modulation rank full -> 8"],
        ),
        (
            [{"blocks": [0, 2]}, {"blocks": 3}],
            [{"blocks": [0, 1]}, {"blocks": [2, 3], "init": "last"}],
            [
                "blocks 0-3: were 0-2 in one (init first) + 3, now 0-1 in one (init first) + 2-3 in one (init last)"
            ],
        ),
    ],
)
def test_the_difference_of_two_plans_in_words(old, new, words):
    assert plans.difference(plan(old), plan(new)) == words


def test_plans_of_other_teachers_and_depths_differ_in_words():
    one, two = (
        plan([{"blocks": 0}, {"blocks": [1, 3]}]),
        plan([{"blocks": [0, 1]}]).model_copy(update={"teacher": "other"}),
    )
    said = plans.difference(one, two)
    assert said[0] == "teacher: qwen -> other" and said[1] == "2 blocks -> 1" and "now" in said[2]


@settings(deadline=None, max_examples=50)
@given(one=a_plan(), two=a_plan())
def test_only_equal_students_have_no_difference(one: Plan, two: Plan):
    same = (one.teacher, one.stacks) == (two.teacher, two.stacks)
    assert (plans.difference(one, two) == []) == same
    assert plans.difference(one, one) == []
