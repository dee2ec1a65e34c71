"""Verb specs: what they accept, how they refuse, how paths and old files are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.records import BadInput
from workbench.specs import (
    VERBS,
    BuildSpec,
    CompareSpec,
    DistillVerbSpec,
    PlanSpec,
    ProfileSpec,
    facts,
    parse_spec,
)
from workbench.specs.base import absolute


@pytest.mark.parametrize("verb", VERBS.names())
def test_every_field_is_described_in_a_sentence(verb: str):
    for fact in facts(VERBS[verb].spec):
        assert fact.about.endswith("."), f"{verb}.{fact.name}"
        assert fact.about[0].isupper() or fact.about.split()[0].rstrip(":,") in (
            "demo",
            "amber",
            "greedy",
            "search",
            "hierarchical",
        ), f"{verb}.{fact.name}"
    assert VERBS[verb].about


@pytest.mark.parametrize("verb", VERBS.names())
def test_every_field_has_a_label_for_forms(verb: str):
    """A few words, not the field's sentence; no two of a form alike."""
    labels = [fact.label for fact in facts(VERBS[verb].spec)]
    assert len(set(labels)) == len(labels)
    for name, field in VERBS[verb].spec.model_fields.items():
        label = field.json_schema_extra["extras"].label
        assert label and not label.endswith("."), f"{verb}.{name}"
        assert len(label) <= 46, f"{verb}.{name}"


@pytest.mark.parametrize("verb", VERBS.names())
def test_an_unknown_key_names_the_nearest_field(verb: str):
    field = next(iter(VERBS[verb].spec.model_fields))
    with pytest.raises(BadInput) as error:
        parse_spec(verb, {field + "s_": 1})
    assert f"unknown key {field}s_" in error.value.found
    assert field in error.value.expected


def test_a_wrong_type_names_the_field_and_the_value():
    with pytest.raises(BadInput) as error:
        ProfileSpec.parse({"teacher": "demo", "timesteps": "many"}, "job 7")
    assert error.value.found == "job 7: timesteps 'many'"
    with pytest.raises(BadInput) as error:
        ProfileSpec.parse({}, "job 7")
    assert error.value.found == "job 7 without teacher"


def test_what_parse_reads_to_data_writes():
    text = {
        "teacher": "demo",
        "keep": "a=2,b=3",
        "protect": "0,1",
        "gain": "2",
        "edits": "join, slim",
    }
    spec = PlanSpec.parse(text)
    assert spec.keep == {"a": 2, "b": 3}
    assert spec.protect == [0, 1]
    assert spec.gain == 2.0
    assert spec.edits == ["join", "slim"]
    assert PlanSpec.parse(spec.to_data()) == spec
    assert "seeds" not in spec.to_data(), "defaults are not written"


@pytest.mark.parametrize(
    ("field", "text"),
    [("keep", "some"), ("keep", "a=x"), ("protect", "0,b"), ("gain", "twice"), ("gain", "")],
)
def test_text_that_cannot_be_parsed_is_refused(field: str, text: str):
    with pytest.raises(BadInput) as error:
        PlanSpec.parse({"teacher": "demo", field: text})
    assert error.value.found == f"plan: {field} {text!r}"


def test_former_names_are_read_and_both_at_once_refused():
    assert ProfileSpec.parse({"teacher": "demo", "steps": 4}).sampling_steps == 4
    old = {"student": "s", "spec": "d.yaml", "keep": 3, "for": "8x80GB", "reference": "r.json"}
    spec = DistillVerbSpec.parse(old)
    assert (spec.spec_file, spec.keep_checkpoints, spec.devices) == ("d.yaml", 3, "8x80GB")
    with pytest.raises(BadInput) as error:
        CompareSpec.parse({"models": ["a"], "steps": 4, "sampling_steps": 5})
    assert "both" in error.value.found


def test_paths_in_a_file_are_relative_to_the_file(tmp_path: Path):
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "build.yaml").write_text("plan: ../plan.yaml\nout: student\nteacher: demo\n")
    spec = BuildSpec.load(folder / "build.yaml")
    assert Path(spec.plan).resolve() == tmp_path / "plan.yaml"
    assert spec.out == str(folder / "student")
    assert spec.teacher == "demo"


def test_a_folder_of_a_recipes_name_does_not_hide_the_recipe(tmp_path: Path):
    (tmp_path / "workbench").mkdir()
    (tmp_path / "mine").write_text("a file")
    assert absolute("workbench", "file-or-name", tmp_path) == "workbench"
    assert absolute("mine", "file-or-name", tmp_path) == str(tmp_path / "mine")
    assert absolute("workbench", "file-or-folder", tmp_path) == str(tmp_path / "workbench")
    assert absolute("Qwen/Qwen-Image", "model", tmp_path) == "Qwen/Qwen-Image"


def test_a_named_model_is_located_like_one_without_a_name(tmp_path: Path):
    (tmp_path / "student").mkdir()
    assert absolute("small=student", "model", tmp_path) == f"small={tmp_path / 'student'}"
    assert absolute("small=demo", "model", tmp_path) == "small=demo"
    assert absolute("small=Qwen/Qwen-Image", "model", tmp_path) == "small=Qwen/Qwen-Image"
