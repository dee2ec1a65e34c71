"""Each figure against a second way of computing it, or an example that was published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from workbench.study import guessing
from workbench.study.agreement import alpha
from workbench.study.bradley_terry import PRIOR, log_strengths
from workbench.study.intervals import Votes, mean_interval

NAN = float("nan")
# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", example C: 4 raters, 12 units
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


@pytest.mark.parametrize(
    "level, value", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_that_of_the_published_example(level: str, value: float):
    assert alpha(PUBLISHED, level) == pytest.approx(value, abs=5e-4)  # type: ignore[arg-type]


def test_alpha_of_intervals_is_that_of_all_pairs_of_ratings():
    """The definition: observed over expected squared differences, pair by pair."""
    ratings = np.random.default_rng(0).integers(1, 6, (5, 30)).astype(float)
    ratings[np.random.default_rng(1).random((5, 30)) < 0.2] = NAN
    columns = [column[np.isfinite(column)] for column in ratings.T]
    columns = [column for column in columns if len(column) > 1]
    everything = np.concatenate(columns)
    observed = 0.0
    for column in columns:
        pairs = itertools.permutations(column, 2)
        observed += sum((a - b) ** 2 for a, b in pairs) / (len(column) - 1)
    expected = sum((a - b) ** 2 for a, b in itertools.permutations(everything, 2))
    expected /= len(everything) * (len(everything) - 1)
    value = 1 - observed / len(everything) / expected
    assert alpha(ratings, "interval") == pytest.approx(value)


def test_alpha_is_1_for_raters_who_agree_and_none_where_it_is_undefined():
    assert alpha(np.array([[1.0, 2, 3], [1, 2, 3]]), "ordinal") == 1
    assert alpha(np.array([[2.0, 2, 2], [2, 2, 2]]), "ordinal") is None
    assert alpha(np.array([[1.0, 2, NAN], [NAN, NAN, 3]]), "ordinal") is None


@pytest.mark.parametrize("seed", range(3))
def test_strengths_are_those_of_maximum_likelihood(seed: int):
    random = np.random.default_rng(seed)
    wins = random.integers(0, 30, (4, 4)).astype(float)
    np.fill_diagonal(wins, 0)
    wins[1, 2] = wins[2, 1] = 0  # never compared
    wins[3] = 0  # never won

    def loss(logs: np.ndarray) -> float:
        all_logs = np.concatenate([[0.0], logs])
        total = 0.0
        for i, j in itertools.permutations(range(4), 2):
            count = wins[i, j] + PRIOR * (wins[i, j] + wins[j, i] > 0)
            total += count * np.logaddexp(0, all_logs[j] - all_logs[i])
        return total

    best = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    assert log_strengths(wins)[1:] == pytest.approx(best.x, abs=1e-4)


def test_several_tables_are_solved_as_one_by_one():
    tables = np.random.default_rng(0).integers(1, 30, (5, 3, 3)).astype(float)
    for table, logs in zip(tables, log_strengths(tables), strict=True):
        assert logs == pytest.approx(log_strengths(table), abs=1e-5)


@pytest.mark.parametrize("votes", [5, 20, 77, 400])
def test_what_abx_needs_and_finds_agrees_with_the_exact_test(votes: int):
    needed = guessing.needed(votes)
    assert stats.binomtest(needed, votes, 0.5, "greater").pvalue <= 0.05
    assert stats.binomtest(needed - 1, votes, 0.5, "greater").pvalue > 0.05
    share = guessing.detectable(votes)
    found = sum(stats.binom.pmf(count, votes, share) for count in range(needed, votes + 1))
    assert found == pytest.approx(0.8, abs=1e-6)


def test_four_votes_find_nothing():
    assert guessing.needed(4) is None and guessing.detectable(4) is None


def test_holm_is_that_of_the_definition():
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert guessing.holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_interval_is_that_of_votes_that_are_drawn_one_by_one():
    """The pigeonhole bootstrap by lists: a vote stands in a resample rater times prompt times."""
    random = np.random.default_rng(3)
    raters = np.repeat(np.arange(8), 10)
    prompts = np.tile(np.arange(10), 8)
    values = (random.random(80) < 0.4 + 0.05 * raters).astype(float)
    means = []
    for _ in range(1500):
        of_raters = np.bincount(random.integers(0, 8, 8), minlength=8)
        of_prompts = np.bincount(random.integers(0, 10, 10), minlength=10)
        drawn = np.repeat(values, of_raters[raters] * of_prompts[prompts])
        means.append(drawn.mean())
    low, high = np.percentile(means, [2.5, 97.5])
    interval = mean_interval(Votes(list(raters), list(prompts), list(values)))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.02)


def test_votes_of_few_raters_have_a_wider_interval_than_as_many_of_many():
    values = [1.0] * 40 + [0.0] * 40
    few = Votes(
        [number // 20 for number in range(80)], [number % 20 for number in range(80)], values
    )
    many = Votes(list(range(80)), [number % 20 for number in range(80)], values)
    few_interval = mean_interval(few)
    many_interval = mean_interval(many)
    assert few_interval.high - few_interval.low > 2 * (many_interval.high - many_interval.low)


def test_equal_votes_have_wilsons_interval_of_the_smaller_number():
    interval = mean_interval(Votes([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1], [1.0] * 6), True)
    wilson = stats.binomtest(2, 2).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high))
