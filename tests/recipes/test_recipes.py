from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from workbench import models, plans, rules
from workbench.recipes import table as recipes
from workbench.records import BadInput, Row, SensitivityMap, Teacher


@pytest.fixture(scope="module")
def teachers() -> list[Teacher]:
    return [models.describe_module(tiny.tiny_transformer(depth)) for depth in (6, 12)]


def a_map(teacher: Teacher, metric: str | None = None) -> SensitivityMap:
    if metric == "cka":
        spans = [
            Row(stack=s.path, block=u, last=k, edit="span", score=0.9 ** (k - u + 1))
            for s in teacher.stacks
            for u in range(s.depth)
            for k in range(u, s.depth)
        ]
        return SensitivityMap(
            teacher=teacher.name, fingerprint="", family=teacher.family, metric="cka", rows=spans
        )
    rows = [
        Row(stack=s.path, block=b, edit="drop", timestep=500.0, score=1.0 + b % 3)
        for s in teacher.stacks
        for b in range(s.depth)
    ]
    return SensitivityMap(teacher=teacher.name, fingerprint="", family=teacher.family, rows=rows)


@pytest.mark.parametrize("name", recipes.RECIPES.names())
def test_every_recipe_fits_teachers_of_any_depth(name: str, teachers: list[Teacher]):
    recipe = recipes.load(name)
    assert recipe.distill.name == name and recipe.about
    for teacher in teachers:
        rule = rules.RULES[recipe.plan.rule]
        measure = (
            {
                "measure": lambda plan: sum(
                    len(span) ** 2 for spans in plan.stacks.values() for span in spans
                )
            }
            if rule.measures
            else {}
        )
        plan = plans.check(recipe.propose(teacher, a_map(teacher, rule.metric), **measure), teacher)
        # parts of blocks make up the rest; this map has none, so whole blocks do
        keep = recipe.plan.counts(teacher)
        if recipe.plan.budget is not None:
            assert all(count <= keep[path] for path, count in plan.depth().items())
        else:
            assert plan.depth() == keep


def test_the_contract_names_are_there():
    assert {"amber-10b", "koala", "hierarchicalprune-20", "workbench"} <= set(
        recipes.RECIPES.names()
    )


def test_an_unknown_recipe_names_the_known(tmp_path: Path):
    with pytest.raises(BadInput) as error:
        recipes.load("nothing")
    assert "amber-10b" in error.value.expected
    (tmp_path / "mine.yaml").write_text(
        "paper: ''\nabout: x\nplan: {rule: uniform, keep: 3}\ndistill: {stages: []}\n"
    )
    with pytest.raises(BadInput) as error:
        recipes.load(str(tmp_path / "mine.yaml"))
    assert "recipe mine" in error.value.found and "keep is 3" in error.value.found
