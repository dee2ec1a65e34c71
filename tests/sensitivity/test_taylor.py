"""Metric taylor: its slopes against finite differences, its expectation against exact first-order
changes, and the model it leaves behind.
"""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_inputs, tiny_transformer
from tests.tiny_families import family_inputs, family_model
from workbench import models
from workbench.families import FAMILIES
from workbench.models import Call
from workbench.models.blocks import Place
from workbench.records import BadInput
from workbench.sensitivity import taylor
from workbench.sensitivity.profiling import profile
from workbench.sensitivity.results import Key
from workbench.sensitivity.scan import Scan
from workbench.sensitivity.table import METRICS

STEP = 1e-2  # of the central difference; some classes compute rotary angles in float32, or have kinks (ReLU)


def family_scan(name: str) -> tuple[Scan, Call]:
    call = Call(family_inputs(name, seed=0), 500.0, 0, 2, "cond")
    return Scan(family_model(name).double()), call


def slope(scan: Scan, call: Call, place: Place) -> torch.Tensor:
    """The change of the prediction when the block's residual is scaled by 1 - a, per a: (B, N)."""
    arguments = scan.replay.arguments(call)
    block = scan.blocks[place]

    def scaled(a: float) -> torch.Tensor:
        gate = torch.full((call.samples,), -a, dtype=torch.float64)
        change = (block.module, taylor.gated(block, gate, False))
        return scan.replay.prediction(arguments, [change]).flatten(1)

    return (scaled(STEP) - scaled(-STEP)) / (2 * STEP)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_probes_slope_is_the_finite_difference(name: str) -> None:
    """<u, J r> of every block from one backward, against <u, change> of scaling its residual."""
    scan, call = family_scan(name)
    found = taylor.taylor(scan, call)
    prediction = scan.reference(call).prediction
    generator = taylor.generator_of(call)
    probe = torch.randint(0, 2, prediction.shape, generator=generator) * 2 - 1
    size = prediction.flatten(1).square().sum(1)
    assert set(found) == {Key(*place, "drop") for place in scan.blocks}
    for place in scan.blocks:
        change = slope(scan, call, place)  # (B, N)
        expected = (change * probe.flatten(1)).sum(1).abs() / size.sqrt()
        length = change.square().sum(1).sqrt() / size.sqrt()
        scores = torch.tensor(found[Key(*place, "drop")], dtype=torch.float64)
        # Of the change's length: the probe may be nearly orthogonal to it.
        assert ((scores.sqrt() - expected).abs() < 1e-2 * length).all(), place


@pytest.mark.parametrize("name", ["qwenimage", "flux", "sd3", "zimage"])
def test_the_mean_over_probes_is_the_first_order_change(name: str) -> None:
    """Hutchinson's estimate is unbiased: many probes come to ||J r||^2 / ||v||^2, within 5 standard
    errors (a squared normal number has a variance of twice its mean squared)."""
    scan, call = family_scan(name)
    probes = 150
    found = taylor.measured(scan, call, probes, checkpointed=False)
    size = scan.reference(call).prediction.flatten(1).square().sum(1)
    for place in scan.blocks:
        expected = slope(scan, call, place).square().sum(1) / size
        tolerance = 5 * (2 / probes) ** 0.5
        assert found[Key(*place, "drop")] == pytest.approx(expected.tolist(), rel=tolerance), place


def test_checkpointed_blocks_give_the_same_scores_for_one_more_forward() -> None:
    scan, call = family_scan("flux")
    depth = len(scan.blocks)
    kept = taylor.measured(scan, call, 2, checkpointed=False)
    assert scan.evaluations == depth * (1 + 2 * 2)
    again = taylor.measured(scan, call, 2, checkpointed=True)
    assert scan.evaluations == depth * (1 + 2 * 2) + depth * (1 + 2 * 3)
    for key, values in kept.items():
        assert again[key] == pytest.approx(values, rel=1e-9)


def test_a_map_of_the_metric_has_rows_of_drop_for_three_forwards_a_call() -> None:
    model = tiny_transformer(depth=4)
    weight = next(model.parameters())
    calls = [Call(tiny_inputs(seed=seed), t, seed, 2, "cond") for seed in (0, 1) for t in (900, 9)]
    teacher = models.describe_module(model)
    first = list(profile(model, teacher, calls, metric="taylor"))
    record = first[-1].result
    assert (record.metric, record.unit) == ("taylor", METRICS["taylor"].unit)
    assert record.edits == ["drop"] and len(record.rows) == 2 * 4
    assert record.block_evaluations == len(calls) * 3 * 4
    assert first[0].metrics["estimated_block_evaluations"] == len(calls) * 3 * 4
    assert weight.requires_grad and weight.grad is None, "the model is as it was"
    second = list(profile(model, teacher, calls, metric="taylor"))[-1].result
    assert second.rows == record.rows, "the probes of a call are always the same"


def test_a_prediction_that_is_not_finite_is_refused() -> None:
    model = tiny_transformer(depth=3)
    scan = Scan(model)
    with torch.no_grad():
        next(model.transformer_blocks[1].parameters()).fill_(float("nan"))
    with pytest.raises(BadInput) as caught:
        taylor.taylor(scan, Call(tiny_inputs(), 500.0, 0, 2, "cond"))
    assert "timestep 500" in caught.value.found
