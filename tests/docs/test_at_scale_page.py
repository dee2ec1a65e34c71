"""The page of large models is what its kept results and its words say now; no dry run is made."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from workbench.recipes.table import load
from workbench.records import DistillSpec, yamlfile

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "at_scale.py"))


def test_the_page_of_large_models_is_current(script: dict[str, Any]) -> None:
    assert (DOCS / "at-scale.md").read_text() == script["page"](), (
        "run python docs/at_scale.py --page"
    )


@pytest.mark.parametrize("recipe", ["one-card", "one-card-full", "amber-10b"])
def test_specs_on_the_page_are_the_recipes_in_turns(script: dict[str, Any], recipe: str) -> None:
    written = DistillSpec.model_validate(yamlfile.parse(script["spec_text"](recipe, 4)))
    for mine, stage in zip(written.stages, load(recipe).distill.stages, strict=True):
        assert mine.batch * mine.accumulate == stage.batch * stage.accumulate
        assert mine.accumulate == 4 * stage.accumulate
        same = {"batch": stage.batch, "accumulate": stage.accumulate}
        assert mine.model_copy(update=same) == stage
