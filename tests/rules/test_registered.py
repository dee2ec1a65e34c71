"""A rule and a recipe of a user's file make plans, on the command line's way and as a job's."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.plugins import unregister
from workbench.records import BadInput, Plan
from workbench.tasks import run

PLUGIN = """
from workbench import register
from workbench.plans import spans_of
from workbench.records import DistillSpec
from workbench.recipes.recipe import Recipe, RecipePlan
from workbench.rules import Proposal, Rule


def propose(request):
    stacks = {}
    for stack in request.teacher.stacks:
        stacks[stack.path] = spans_of(stack.depth, range(request.keep[stack.path]))
    return Proposal(stacks)


register("rule", "front", Rule(propose, title="Front", about="Keeps the first blocks."))
plan = RecipePlan(rule="front", keep=0.25, init="last")
spec = DistillSpec(stages=[{"name": "all", "losses": {"feature": {}}}])
register("recipe", "quarter", Recipe("quarter", "", "A quarter.", plan, spec))
"""


@pytest.fixture
def plugin(tmp_path: Path):
    """The path of a plugin file; its rows are taken back afterwards."""
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    yield file
    unregister("rule", "front")
    unregister("recipe", "quarter")


def test_a_rule_and_a_recipe_of_a_plugin_file_make_plans(plugin: Path, tmp_path: Path):
    common = {"teacher": "demo", "plugins": [str(plugin)]}
    by_rule = {**common, "rule": "front", "keep": 3, "out": str(tmp_path / "rule.yaml")}
    result = run("plan", by_rule, tmp_path)
    assert result["rule"] == "front" and result["depth"] == {"transformer_blocks": 3}
    made = Plan.load(tmp_path / "rule.yaml")
    assert [span.blocks for span in made.stacks["transformer_blocks"]] == [(0, 0), (1, 1), (2, 23)]
    by_recipe = {**common, "recipe": "quarter", "out": str(tmp_path / "recipe.yaml")}
    assert run("plan", by_recipe, tmp_path)["depth"] == {"transformer_blocks": 6}
    made = Plan.load(tmp_path / "recipe.yaml")
    assert (
        made.origin["recipe"] == "quarter" and made.stacks["transformer_blocks"][-1].init == "last"
    )


def test_a_budget_finds_the_depth_of_a_rule_that_only_counts_blocks(plugin: Path, tmp_path: Path):
    spec = {"teacher": "demo", "plugins": [str(plugin)], "rule": "front", "budget": "params=0.5"}
    result = run("plan", {**spec, "out": str(tmp_path / "plan.yaml")}, tmp_path)
    assert result["ratio"] <= 0.5 and result["depth"]["transformer_blocks"] == 11


def test_without_the_file_the_error_says_how_to_load_it(tmp_path: Path):
    with pytest.raises(BadInput) as error:
        run("plan", {"teacher": "demo", "rule": "front", "keep": 3}, tmp_path)
    assert error.value.found == "rule 'front'" and "--plugin" in error.value.do
