"""The meter against the built student: two ways of computing one error."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from tests.refusals import refused
from workbench import models, plans, surgery
from workbench.models import Call, prediction
from workbench.records import Plan, Span
from workbench.sensitivity.measured_error import PlanMeter

PATH = "transformer_blocks"


@pytest.fixture(scope="module")
def teacher() -> torch.nn.Module:
    return tiny.tiny_transformer(6).double()


def calls() -> list[Call]:
    return [
        Call(tiny.tiny_inputs(seed=seed, timestep=t / 1000, dtype=torch.float64), t, 0, 2, "cond")
        for seed, t in enumerate((900.0, 100.0))
    ]


def a_plan(spans: list[dict]) -> Plan:
    return Plan(
        teacher="", family="qwenimage", stacks={PATH: [Span.model_validate(s) for s in spans]}
    )


PLANS = [
    [{"blocks": [0, 1]}, {"blocks": 2}, {"blocks": [3, 5], "init": "mean", "gain": 3}],
    [
        {"blocks": 0},
        {"blocks": [1, 2], "init": "last"},
        {"blocks": 3},
        {"blocks": [4, 5], "init": "middle", "gain": 2},
    ],
    [
        {"blocks": 0},
        {"blocks": 1},
        {"blocks": 2, "drop": ["mlp"]},
        {"blocks": 3},
        {"blocks": 4},
        {"blocks": 5, "drop": ["text.output"]},
    ],
    [
        {"blocks": 0},
        {"blocks": [1, 2], "init": "mean", "stream": "single"},
        {"blocks": 3},
        {"blocks": 4, "stream": "single", "drop": ["mlp"]},
        {"blocks": 5, "stream": "single"},
    ],
]


@torch.no_grad()
def built(teacher: torch.nn.Module, plan: Plan) -> float:
    """The same error from the student itself."""
    student, errors = surgery.student_transformer(teacher, plan), []
    for call in calls():
        v, other = (prediction(m(**call.kwargs), m).flatten(1) for m in (teacher, student))
        errors.append(((v - other).square().sum(1) / v.square().sum(1)).mean().item())
    return sum(errors) / len(errors)


@pytest.mark.parametrize("settled", [None, *range(len(PLANS))])
def test_a_plans_error_is_that_of_the_built_student_whatever_was_settled_on(teacher, settled):
    meter = PlanMeter(teacher, models.describe_module(teacher), calls())
    if settled is not None:
        meter.settle(a_plan(PLANS[settled]))
    for spans in PLANS:
        assert meter.error(a_plan(spans)) == pytest.approx(built(teacher, a_plan(spans)), rel=1e-12)


def test_blocks_before_the_first_change_are_not_run_again(teacher):
    meter = PlanMeter(teacher, models.describe_module(teacher), calls())
    before = meter.evaluations
    meter.error(a_plan([{"blocks": b} for b in range(4)] + [{"blocks": [4, 5]}]))
    assert meter.evaluations - before == 1 * len(calls())
    meter.error(a_plan([{"blocks": b} for b in range(4)] + [{"blocks": [4, 5]}]))  # known
    assert meter.evaluations - before == 1 * len(calls())


def test_the_teacher_has_no_error_and_is_left_as_it_was(teacher):
    described = models.describe_module(teacher)
    meter = PlanMeter(teacher, described, calls(), weighting="normalised")
    meter.error(a_plan(PLANS[0]))
    assert meter.error(plans.identity(described)) == pytest.approx(0, abs=1e-20)
    assert all("forward" not in block.__dict__ for block in teacher.transformer_blocks)


def test_weightings_order_timesteps(teacher):
    described = models.describe_module(teacher)
    by = {w: PlanMeter(teacher, described, calls(), weighting=w) for w in plans.WEIGHTINGS}
    errors = by["uniform"].errors(a_plan(PLANS[0]))
    assert by["uniform"].error(a_plan(PLANS[0])) == pytest.approx(sum(errors.values()) / 2)
    assert by["high-noise"].error(a_plan(PLANS[0])) == pytest.approx(
        0.9 * errors[900.0] + 0.1 * errors[100.0]
    )
    assert by["low-noise"].error(a_plan(PLANS[0])) == pytest.approx(
        0.1 * errors[900.0] + 0.9 * errors[100.0]
    )
    assert by["normalised"].error(a_plan(PLANS[0])) == pytest.approx(
        (errors[900.0] * errors[100.0]) ** 0.5
    )


def test_a_meter_without_calls_or_with_another_weighting_is_refused(teacher):
    described = models.describe_module(teacher)
    with refused(found="no calls", do="prompts"):
        PlanMeter(teacher, described, [])
    with refused(found="'odd'", expected="high-noise"):
        PlanMeter(teacher, described, calls(), weighting="odd")
