"""docs/distill.schema.json knows what the program knows."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from workbench.recipes import table as recipes
from workbench.records import BadInput, DistillSpec, Loss, Stage, Timesteps
from workbench.records.distill_schema import schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "distill.schema.json"


def test_the_published_schema_is_the_programs_own():
    assert json.loads(PUBLISHED.read_text()) == schema(), (
        "run: python -m workbench.records.distill_schema > docs/distill.schema.json"
    )
    jsonschema.Draft7Validator.check_schema(schema())


@pytest.mark.parametrize("record", [DistillSpec, Stage, Loss, Timesteps])
def test_every_field_says_what_it_is(record: type):
    assert [name for name, field in record.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", recipes.RECIPES.names())
def test_the_spec_of_every_recipe_fits_the_schema(name: str):
    jsonschema.validate(recipes.load(name).distill.model_dump(mode="json"), schema())


@pytest.mark.parametrize(
    "stage",
    [
        {"name": "x", "steps": -1},
        {"name": "x", "step": 1},
        {"steps": 1},
        {"name": "x", "timesteps": "evenly"},
        {"name": "x", "losses": {}},
        {"name": "x", "losses": {"feature": {"reduction": "max"}}},
        {"name": "x", "guidance": [1, 2, 3]},
        {"name": "x", "betas": [0.9]},
        {"name": "x", "train": "first"},
    ],
)
def test_what_the_program_refuses_the_schema_refuses(stage: dict[str, object]):
    with pytest.raises(BadInput):
        DistillSpec.parse({"stages": [stage]}, "it")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"stages": [stage]}, schema())


def test_what_the_program_takes_the_schema_takes():
    stage = {"name": "x", "timesteps": "uniform", "guidance": [2, 5], "betas": [0.9, 0.95]}
    DistillSpec.parse({"stages": [stage]}, "it")
    jsonschema.validate({"stages": [stage]}, schema())
