"""Means over prompts and their intervals, against second ways of computing them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workbench.comparison.statistics import (
    mean_of_groups,
    paired_difference,
    prompt_means,
    prompts_needed,
    score_of,
    wilson,
)


def items(**counts: int) -> list[dict[str, Any]]:
    """Items of so many prompts a category."""
    out: list[dict[str, Any]] = []
    for category, count in counts.items():
        out += [{"prompt": f"{category}{i}", "category": category} for i in range(count)]
    return out


def test_wilsons_interval_is_the_published_one():
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)  # Wilson 1927, as in Newcombe 1998


@pytest.mark.parametrize("many", [4, 5, 40])
def test_the_overall_score_is_the_mean_of_the_categories_however_many_prompts_they_have(many: int):
    suite = items(a=many, b=1, c=12)
    values = [0.0] * many + [1.0] + [0.5] * 12
    assert score_of(values, suite).overall == pytest.approx(0.5)
    assert paired_difference(values, [0.0] * len(values), suite).mean == pytest.approx(0.5)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    estimates = [mean_of_groups([rng.normal(0.3, 1, 60)]) for _ in range(60)]
    hits = [e.low is not None and e.low <= 0.3 <= (e.high or 0) for e in estimates]
    assert 0.86 < np.mean(hits) <= 1


def test_the_interval_within_categories_is_the_normal_one_of_a_stratified_mean():
    rng = np.random.default_rng(2)
    groups = [rng.normal(mean, 1, 60) for mean in (0, 3, 9)]
    estimate = mean_of_groups(groups)
    error = np.sqrt(sum(group.var() / len(group) for group in groups)) / 3
    assert estimate.mean == pytest.approx(np.mean([group.mean() for group in groups]))
    assert estimate.low == pytest.approx(estimate.mean - 1.96 * error, abs=0.02)
    assert estimate.high == pytest.approx(estimate.mean + 1.96 * error, abs=0.02)


def test_few_prompts_do_not_look_certain():
    single = mean_of_groups([np.array([0.5])])
    assert (single.mean, single.low, single.high) == (0.5, None, None)
    one_each = mean_of_groups([np.array([0.0]), np.array([1.0])])
    assert (one_each.low, one_each.mean, one_each.high) == (0.0, 0.5, 1.0)


def test_seeds_of_one_prompt_are_one_draw():
    suite = [{"prompt": str(i // 10), "category": "c"} for i in range(40)]
    values = [float(i // 10 % 2) for i in range(40)]
    [means] = prompt_means(values, suite).values()
    assert means.tolist() == [0, 1, 0, 1]
    low = score_of(values, suite).low
    assert low is not None and low <= 0.05
    assert paired_difference(values, values, suite).high == 0.0


def test_a_category_in_which_all_passed_is_still_uncertain():
    suite = items(a=40, b=40)
    score = score_of([1.0] * 40 + [0.25, 0.75] * 20, suite, passes=True)
    assert score.intervals["a"] == pytest.approx(wilson(40, 40))
    assert score.intervals["a"][0] == pytest.approx(0.912, abs=1e-3)
    low, high = score.intervals["b"]
    assert low is not None and high is not None and low < 0.5 < high


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_suite_in_which_all_passed_or_failed_is_still_uncertain(value: float):
    score = score_of([value] * 80, items(a=40, b=40), passes=True)
    assert (score.low, score.high) == pytest.approx(wilson(int(80 * value), 80))


def test_likeness_of_1_to_itself_is_certain():
    """SSIM of the first model's pictures to themselves: no passes, so no interval of a share."""
    score = score_of([1.0] * 80, items(a=40, b=40))
    assert (score.low, score.high) == (1.0, 1.0)
    assert score.intervals["a"] == (1.0, 1.0)


def test_pairs_see_what_two_intervals_do_not():
    """One picture in twenty more passes, the others alike: the intervals overlap, the pairs say
    which is better.
    """
    suite = items(a=100, b=100)
    one = [float(i % 2) for i in range(200)]
    two = [max(value, float(i % 20 == 0)) for i, value in enumerate(one)]
    better, worse = score_of(two, suite, passes=True), score_of(one, suite, passes=True)
    assert better.low is not None and worse.high is not None and better.low < worse.high
    difference = paired_difference(two, one, suite)
    assert difference.mean == pytest.approx(0.05) and difference.significant


def test_so_many_prompts_find_the_difference_as_often_as_they_should() -> None:
    """Against a simulation: comparisons of that many prompts, with a true difference of 0.1."""
    rng = np.random.default_rng(3)
    spreads = (0.2, 0.4)  # of two categories
    pilot = [rng.normal(0, spread, 4000) for spread in spreads]
    needed = prompts_needed(pilot, 0.1)
    assert needed is not None
    found = 0
    for _ in range(1000):
        groups = [rng.normal(0.1, spread, needed // 2) for spread in spreads]
        error = np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups)) / 2
        found += abs(np.mean([group.mean() for group in groups])) > 1.96 * error
    assert 0.76 < found / 1000 < 0.84
    assert prompts_needed([np.zeros(5)], 0.1) is None
    assert prompts_needed([np.ones(1), rng.normal(0, 1, 5)], 0.1) is None


def test_prompts_needed_are_computed_for_shares_alone() -> None:
    suite = items(a=6)
    shares = paired_difference([0, 1, 1, 0, 1, 1], [1, 1, 1, 0, 0, 1], suite)
    assert shares.prompts_needed is not None and shares.prompts_needed > 6
    assert (
        paired_difference([20, 30, 25, 1, 2, 3], [1, 2, 3, 4, 5, 6], suite).prompts_needed is None
    )
