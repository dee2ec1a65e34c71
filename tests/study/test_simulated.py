"""Studies of raters whose preferences are known: they are found again within the intervals."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from workbench.study.results import figures, win_rate
from workbench.study.sheets import Shown

from . import studies

RATERS = 20
LOG_ODDS = {"teacher": 0.0, "student-a": -0.4, "student-b": -1.2}
STUDIES = 40


def chance(difference: float, spread: float = 0.3, ties: float = 0.2) -> float:
    """The expected win rate: over raters' tastes (normal, of two models), ties as half."""
    tastes = np.random.default_rng(0).normal(0, spread * math.sqrt(2), 50_000)
    return ties / 2 + (1 - ties) * float((1 / (1 + np.exp(-difference - tastes))).mean())


def test_twenty_raters_with_known_preferences_are_found_within_the_intervals():
    study = studies.study("pairs", prompts=20, seeds=1)
    answer = studies.preferring(LOG_ODDS, seed=5)
    results = figures(study, studies.voted(study, answer, RATERS))
    assert len(results.counted) == RATERS and results.votes == RATERS * 60
    for pair in results.pairs:
        truth = chance(LOG_ODDS[pair.model] - LOG_ODDS[pair.other])
        assert pair.rate.low <= truth <= pair.rate.high, pair
        assert pair.rate.high - pair.rate.low < 0.25
        assert pair.wins + pair.losses + pair.ties == RATERS * 20
    for strength in results.strengths[1:]:
        truth = math.log(1 / (1 / chance(LOG_ODDS[strength.model]) - 1))
        assert strength.log_odds.low <= truth <= strength.log_odds.high, strength
    order = [strength.model for strength in sorted(results.strengths, key=lambda s: -s.rate)]
    assert order == list(LOG_ODDS)


def test_intervals_hold_the_truth_in_about_95_of_100_studies():
    study = studies.study("pairs", models=("teacher", "student-a"), prompts=10, seeds=1, checks=0)
    truth = chance(LOG_ODDS["student-a"])
    held = 0
    for seed in range(STUDIES):
        answer = studies.preferring(LOG_ODDS, seed=seed)
        votes = list(studies.voted(study, answer, RATERS).votes.values())
        rate = win_rate(study, "student-a", votes)
        held += rate.low <= truth <= rate.high
    assert held >= 0.88 * STUDIES  # two standard deviations below 95 %


def test_ratings_of_raters_with_known_means_are_found_within_the_intervals():
    study = studies.study("ratings", prompts=20, seeds=1)
    means = {"teacher": 4.4, "student-a": 4.2, "student-b": 2.9}
    draws = Random(1)
    moods = [draws.gauss(0, 0.3) for _ in range(RATERS)]

    def answer(rater: int, shown: Shown) -> dict[str, object]:
        if shown.check:
            return studies.looks(shown)
        exact = means[shown.slots["one"]] + moods[rater]
        rating = math.floor(exact) + (draws.random() < exact - math.floor(exact))
        return {"quality": min(5, max(1, rating)), "alignment": draws.choice([3, 4])}

    results = figures(study, studies.voted(study, answer, RATERS))
    found = {(line.criterion, line.model): line for line in results.ratings}
    for model, mean in means.items():
        line = found["quality", model]
        assert line.mean.low <= mean + np.mean(moods) <= line.mean.high
        if model != "teacher":
            truth = mean - means["teacher"]
            # moods cancel in paired differences: their intervals are the narrower ones
            assert line.difference.low <= truth <= line.difference.high
            width = line.difference.high - line.difference.low
            assert width < line.mean.high - line.mean.low
    nothing = found["alignment", "student-b"].difference
    assert nothing.low < 0 < nothing.high
    alphas = {line.question: line.alpha for line in results.agreement}
    assert alphas["quality"] > 0.3 and abs(alphas["alignment"]) < 0.1


@pytest.mark.parametrize("share_seen, is_found", [(0.0, False), (0.3, True)])
def test_abx_finds_raters_who_see_and_not_those_who_guess(share_seen: float, is_found: bool):
    study = studies.study("abx", models=("teacher", "student-a"), prompts=20, seeds=1)
    draws = Random(4)

    def answer(rater: int, shown: Shown) -> dict[str, object]:
        if shown.check or draws.random() < share_seen:
            return studies.looks(shown)
        return {"choice": draws.choice(["a", "b"])}

    results = figures(study, studies.voted(study, answer, RATERS))
    line = results.abx[0]
    assert line.votes == RATERS * 20
    assert line.share.low <= (1 + share_seen) / 2 <= line.share.high
    assert (line.p_value <= 0.05) == is_found == (line.correct >= line.needed)
    assert 0.5 < line.detectable < 0.6
    assert line.detectable_seen == pytest.approx(2 * line.detectable - 1)


def test_one_rater_who_sees_is_named_among_nineteen_who_guess():
    study = studies.study("abx", models=("teacher", "student-a"), prompts=20, seeds=1)
    draws = Random(4)

    def answer(rater: int, shown: Shown) -> dict[str, object]:
        if shown.check or rater == 7:
            return studies.looks(shown)
        return {"choice": draws.choice(["a", "b"])}

    results = figures(study, studies.voted(study, answer, RATERS))
    assert [line.rater for line in results.raters if line.p_value <= 0.05] == [7]


def test_raters_who_do_not_look_are_listed_and_left_out():
    study = studies.study("pairs", models=("teacher", "student-a"), prompts=10, seeds=1, checks=4)
    good = studies.preferring({"teacher": 5.0, "student-a": -5.0}, seed=1, ties=0)

    def answer(rater: int, shown: Shown) -> dict[str, object]:
        return {"choice": "a"} if rater in (2, 3) else good(rater, shown)

    ballots = studies.voted(study, answer, 6)
    results = figures(study, ballots)
    assert results.excluded == [2, 3] and results.counted == [0, 1, 4, 5]
    assert sum(line.failed for line in results.raters) == 4  # each check was seen in both orders
    assert results.raters[2].left_share == 1
    assert results.pairs[0].losses == results.votes == 40
    everyone = figures(study, ballots, everyone=True)
    assert everyone.excluded == [] and everyone.votes == 60 and everyone.pairs[0].wins == 10


def test_raters_who_like_the_left_side_do_not_shift_the_rate():
    study = studies.study("pairs", models=("teacher", "student-a"), prompts=10, seeds=1, checks=0)
    results = figures(study, studies.voted(study, lambda *_: {"choice": "a"}, 8))
    assert results.pairs[0].rate.value == 0.5
    assert results.left_share.value == 1


def test_a_study_without_votes_has_no_figures():
    for kind in ("pairs", "ratings", "abx"):
        record = studies.study(kind)
        results = figures(record, studies.voted(record, studies.preferring({}, 0), 0))
        assert results.votes == 0 and not results.pairs and not results.abx and not results.ratings
