"""How far the order of blocks can be trusted: the bootstrap against one written out, and scans that
end when it is stable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from tests.tiny import tiny_inputs, tiny_transformer
from workbench import models, plans, sensitivity
from workbench.models import Call
from workbench.records import Row, SensitivityMap
from workbench.sensitivity.stability import FEWEST, RESAMPLES, SEED, Result, ranks

BLOCKS = 8


def results(noise: float, samples: int, batches: int = 2, seed: int = 0) -> list[Result]:
    """Scores of 8 blocks, 1 .. 8 at one timestep and ten times that at another, with noise per
    sample.
    """
    rng = np.random.default_rng(seed)
    return [
        (
            group,
            time,
            {
                f"stack {b} drop": (
                    (b + 1) * level * np.exp(noise * rng.normal(size=samples))
                ).tolist()
                for b in range(BLOCKS)
            },
        )
        for group in range(batches)
        for time, level in ((900.0, 1.0), (100.0, 10.0))
    ]


def test_ranks_are_scipys() -> None:
    values = np.array([[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    assert np.array_equal(ranks(values) + 1, rankdata(values, axis=1))


@pytest.mark.parametrize("weighting", plans.WEIGHTINGS)
def test_the_bootstrap_is_the_one_written_out(weighting: str) -> None:
    """Resampled maps aggregated by plans.block_scores, correlated by scipy."""
    found = sensitivity.stability(results(0.8, 3), weighting=weighting)["drop"]
    table = {
        time: np.concatenate(
            [
                np.array([scores[f"stack {b} drop"] for b in range(BLOCKS)])
                for _, at, scores in results(0.8, 3)
                if at == time
            ],
            axis=1,
        )
        for time in (900.0, 100.0)
    }  # (blocks, samples)

    def order(counts: np.ndarray) -> list[float]:
        rows = [
            Row(
                stack="stack",
                block=b,
                edit="drop",
                timestep=time,
                score=float((values[b] * counts).sum() / counts.sum()),
            )
            for time, values in table.items()
            for b in range(BLOCKS)
        ]
        record = SensitivityMap(teacher="x", fingerprint="", family="qwenimage", rows=rows)
        return list(plans.block_scores(record, "drop", weighting).values())

    draws = np.random.default_rng(SEED).multinomial(6, np.full(6, 1 / 6), RESAMPLES)
    values = [spearmanr(order(draw), order(np.ones(6))).statistic for draw in draws]
    assert found["spearman"] == pytest.approx(np.mean(values), abs=1e-9)
    assert [found["low"], found["high"]] == pytest.approx(
        np.percentile(values, [2.5, 97.5]).tolist(), abs=1e-9
    )


def test_more_prompts_and_less_noise_make_an_order_stable() -> None:
    noisy, quiet, more = (
        sensitivity.stability(results(*how))["drop"] for how in ((2.0, 4), (0.02, 4), (0.5, 40))
    )
    assert not noisy["stable"] and quiet["stable"] and more["stable"]
    assert noisy["spearman"] < more["spearman"] < quiet["spearman"] <= 1
    assert quiet["prompts"] == 8 and more["prompts"] == 80


def test_too_few_prompts_are_never_enough() -> None:
    found = sensitivity.stability(results(0.0, FEWEST - 1, batches=1))["drop"]
    assert found["spearman"] == 1 and not found["stable"]


def test_seeds_of_a_prompt_are_drawn_together() -> None:
    assert sensitivity.stability(results(0.5, 6), prompts=6)["drop"]["prompts"] == 6


def test_two_blocks_have_no_order() -> None:
    assert sensitivity.stability([(0, 500.0, {"stack 0 drop": [1.0], "stack 1 drop": [2.0]})]) == {}


def test_batches_that_lack_a_timestep_still_count() -> None:
    """Recorded inputs may hold other timesteps for other samples."""
    found = sensitivity.stability(
        [result for result in results(0.02, 5) if not (result[0] == 1 and result[1] == 100.0)]
    )
    assert found["drop"]["prompts"] == 10 and found["drop"]["stable"]


def test_in_words() -> None:
    one = {"spearman": 0.98, "low": 0.95, "high": 1.0, "prompts": 20, "stable": True}
    record = SensitivityMap(
        teacher="x",
        fingerprint="",
        family="qwenimage",
        rows=[],
        measured={"stability": {"drop": one}},
    )
    assert (
        record.trust.startswith("the order of blocks is stable: drop 0.98 (0.95 to 1.00); ")
        and "20 prompts" in record.trust
    )
    shaky = {"drop": one, "merge": {**one, "low": 0.4, "stable": False}}
    assert record.model_copy(update={"measured": {"stability": shaky}}).trust.startswith(
        "more prompts are needed: merge 0.98 (0.40 to"
    )
    assert record.model_copy(update={"measured": {}}).trust == ""


def test_a_scan_ends_when_the_order_is_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch after batch, until the first that makes it stable; and to the end where none does."""
    model = tiny_transformer(depth=4)
    asked: list[int] = []

    def calls() -> Iterator[Call]:
        for group in range(6):
            asked.append(group)
            yield Call(tiny_inputs(seed=group), 500.0, group, 2, "cond")

    def scan(**more: Any) -> SensitivityMap:
        asked.clear()
        return list(
            sensitivity.profile(
                model, models.describe_module(model), calls(), edits=["drop"], total=6, **more
            )
        )[-1].result

    assert scan().measured["samples"] == 12
    verdicts = iter([False, True, True])
    verdict = lambda *args, **kwargs: {"drop": {"stable": next(verdicts, False)}}  # noqa: E731
    monkeypatch.setattr(sensitivity.profiling, "stability", verdict)
    assert scan(until_stable=True).measured["samples"] == 4 and asked == [0, 1, 2]
    assert scan(until_stable=True).measured["samples"] == 12
