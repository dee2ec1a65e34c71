"""How far the order of blocks can be trusted: the bootstrap against one written out, and scans that
end when it is stable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.tiny import tiny_inputs, tiny_transformer
from workbench import models, plans
from workbench.models import Call
from workbench.records import Row, SensitivityMap, Stability
from workbench.sensitivity import call_loop
from workbench.sensitivity.profiling import profile
from workbench.sensitivity.results import CallScores, Key
from workbench.sensitivity.scan_settings import Setting
from workbench.sensitivity.stability import FEWEST, RESAMPLES, SEED, stability

BLOCKS = 8


def results(noise: float, samples: int, batches: int = 2, seed: int = 0) -> list[CallScores]:
    """Scores of 8 blocks, 1 .. 8 at one timestep and ten times that at another, with noise per
    sample.
    """
    rng = np.random.default_rng(seed)
    return [
        CallScores(
            group,
            time,
            {
                Key("stack", b, "drop"): (
                    (b + 1) * level * np.exp(noise * rng.normal(size=samples))
                ).tolist()
                for b in range(BLOCKS)
            },
        )
        for group in range(batches)
        for time, level in ((900.0, 1.0), (100.0, 10.0))
    ]


@pytest.mark.parametrize("weighting", plans.WEIGHTINGS)
def test_the_bootstrap_is_the_one_written_out(weighting: str) -> None:
    """Resampled maps aggregated by plans.block_scores, correlated by scipy."""
    found = stability(results(0.8, 3), weighting=weighting)["drop"]
    table = {
        time: np.concatenate(
            [
                np.array([call.scores[Key("stack", b, "drop")] for b in range(BLOCKS)])
                for call in results(0.8, 3)
                if call.timestep == time
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
    assert found.spearman == pytest.approx(np.mean(values), abs=1e-9)
    assert [found.low, found.high] == pytest.approx(
        np.percentile(values, [2.5, 97.5]).tolist(), abs=1e-9
    )


def test_more_prompts_and_less_noise_make_an_order_stable() -> None:
    noisy, quiet, more = (
        stability(results(*how))["drop"] for how in ((2.0, 4), (0.02, 4), (0.5, 40))
    )
    assert not noisy.stable and quiet.stable and more.stable
    assert noisy.spearman < more.spearman < quiet.spearman <= 1
    assert quiet.prompts == 8 and more.prompts == 80


def test_too_few_prompts_are_never_enough() -> None:
    found = stability(results(0.0, FEWEST - 1, batches=1))["drop"]
    assert found.spearman == 1 and not found.stable


def test_seeds_of_a_prompt_are_drawn_together_wherever_they_stand() -> None:
    """Samples belong to the prompt whose caption they have: neither the order of the samples nor
    the batches that are missing (those that metric recovery trained on) change the pairing.
    """
    prompts = ["a", "b", "c", "d", "e", "f"]
    seed_by_seed = tuple(prompts * 2)
    prompt_by_prompt = tuple(prompt for prompt in prompts for _ in range(2))
    [one, other] = results(0.5, 12, batches=1)
    places = {prompt: [i for i, p in enumerate(seed_by_seed) if p == prompt] for prompt in prompts}
    order = [index for prompt in prompts for index in places[prompt]]
    found = []
    for names, permuted in ((seed_by_seed, range(12)), (prompt_by_prompt, order)):
        calls = [
            replace(
                call,
                group=7,
                prompts=names,
                scores={key: [values[i] for i in permuted] for key, values in call.scores.items()},
            )
            for call in (one, other)
        ]
        found.append(stability(calls)["drop"])
    assert found[0].prompts == found[1].prompts == 6
    assert found[0].spearman == pytest.approx(found[1].spearman, abs=1e-12)
    assert stability([one, other])["drop"].prompts == 12, "without captions each sample is a prompt"


def test_blocks_that_all_score_the_same_have_no_order() -> None:
    """Not a stable one: the correlation is undefined, and the map says so."""
    flat = [
        replace(call, scores={key: [0.25] * len(values) for key, values in call.scores.items()})
        for call in results(0.5, 8)
    ]
    found = stability(flat)["drop"]
    assert (found.spearman, found.low, found.high, found.stable) == (None, None, None, False)
    record = SensitivityMap(
        teacher="x",
        fingerprint="",
        family="qwenimage",
        rows=[],
        measured={"stability": {"drop": found.model_dump()}},
    )
    assert record.trust == "no order of blocks by drop: all score the same"
    assert SensitivityMap.parse(record.model_dump(mode="json"), "x").stability["drop"] == found


def test_two_blocks_have_no_order() -> None:
    scores = {Key("stack", 0, "drop"): [1.0], Key("stack", 1, "drop"): [2.0]}
    assert stability([CallScores(0, 500.0, scores)]) == {}


def test_batches_that_lack_a_timestep_still_count() -> None:
    """Recorded inputs may hold other timesteps for other samples."""
    found = stability(
        [call for call in results(0.02, 5) if not (call.group == 1 and call.timestep == 100.0)]
    )
    assert found["drop"].prompts == 10 and found["drop"].stable


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

    def scan(until_stable: bool = False) -> SensitivityMap:
        asked.clear()
        setting = Setting(total=6, until_stable=until_stable)
        teacher = models.describe_module(model)
        work = profile(model, teacher, calls(), edits=["drop"], setting=setting)
        return list(work)[-1].result

    assert scan().measured["samples"] == 12
    verdicts = iter([False, True])

    def verdict(*args: Any) -> dict[str, Stability]:
        stable = next(verdicts, False)
        return {"drop": Stability(spearman=1, low=1, high=1, prompts=9, stable=stable)}

    monkeypatch.setattr(call_loop, "stability", verdict)
    assert scan(until_stable=True).measured["samples"] == 4 and asked == [0, 1, 2]
    assert scan(until_stable=True).measured["samples"] == 12
