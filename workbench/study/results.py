"""The figures of a study from its votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..records import (
    CRITERIA,
    AbxResult,
    Agreement,
    Interval,
    PairResult,
    RaterResult,
    RatingResult,
    Strength,
    Study,
    StudyResults,
    Vote,
)
from . import guessing
from .agreement import Level, alpha
from .bradley_terry import log_strengths
from .create import FILE
from .intervals import Draws, Votes, mean_interval, method_of, percentiles
from .sheets import sheet
from .votes import Ballots, read

STRENGTH_RESAMPLES = 500
Pair = tuple[str, str]  # (other, model): in the order of the study's models
Value = Callable[[Study, Vote], float]


def results_of(folder: Path, everyone: bool = False) -> StudyResults:
    """Figures of a study's folder. everyone: raters who failed attention checks count too.

    Raises BadInput for a folder without a study.
    """
    return figures(Study.load(folder / FILE), read(folder), everyone)


def figures(study: Study, ballots: Ballots, everyone: bool = False) -> StudyResults:
    """All figures; those of another kind of study are empty, and all where nobody has voted."""
    raters = rater_results(study, ballots, everyone)
    counted = {rater.rater for rater in raters if rater.counted}
    votes = []
    for vote in ballots.votes.values():
        if vote.rater in counted and not vote.check:
            votes.append(vote)
    results = StudyResults(
        kind=study.kind,
        models=study.models,
        votes=len(votes),
        raters=raters,
        left_share=left_share(study, votes),
        unread=ballots.unread,
    )
    if not votes:
        return results
    return results.model_copy(update=PARTS[study.kind](study, votes))


# --- raters ---------------------------------------------------------------------------------------


def rater_results(study: Study, ballots: Ballots, everyone: bool) -> list[RaterResult]:
    """One line per rater who has begun."""
    numbers = sorted({*ballots.seats, *(rater for rater, _ in ballots.votes)})
    lines = [rater_result(study, ballots, number, everyone) for number in numbers]
    tested = [line for line in lines if line.p_value is not None]
    adjusted = guessing.holm([line.p_value or 0.0 for line in tested])
    by_rater = {}
    for line, p_value in zip(tested, adjusted, strict=True):
        by_rater[line.rater] = p_value
    return [line.model_copy(update={"p_value": by_rater.get(line.rater)}) for line in lines]


def rater_result(study: Study, ballots: Ballots, rater: int, everyone: bool) -> RaterResult:
    votes = ballots.of_rater(rater)
    checks = [vote for vote in votes if vote.check]
    judged = [vote for vote in votes if not vote.check]
    failed = sum(not vote.passes_check for vote in checks)
    times = [vote.seconds for vote in votes if vote.seconds is not None]
    lefts = [vote.choice == "a" for vote in judged if vote.choice in ("a", "b")]
    correct = sum(vote.is_correct for vote in judged)
    is_abx = study.kind == "abx" and bool(judged)
    return RaterResult(
        rater=rater,
        votes=len(votes),
        of=len(sheet(study, rater)),
        checks=len(checks),
        failed=failed,
        counted=everyone or failed <= study.most_failed,
        left_share=float(np.mean(lefts)) if lefts else None,
        seconds=float(np.median(times)) if times else None,
        correct=correct if is_abx else None,
        p_value=guessing.p_value(correct, len(judged)) if is_abx else None,
    )


def left_share(study: Study, votes: Sequence[Vote]) -> Interval | None:
    chosen = [vote for vote in votes if vote.choice in ("a", "b")]
    if not chosen:
        return None
    values = [float(vote.choice == "a") for vote in chosen]
    return mean_interval(votes_of(study, chosen, values), is_share=True)


# --- pairs ----------------------------------------------------------------------------------------


def pair_parts(study: Study, votes: Sequence[Vote]) -> dict[str, object]:
    pairs = [pair_result(study, pair, own) for pair, own in by_pair(study, votes).items()]
    return {
        "pairs": pairs,
        "strengths": strengths(study, votes),
        "agreement": [agreement(study, votes, "preference", preference)],
    }


def by_pair(study: Study, votes: Sequence[Vote]) -> dict[Pair, list[Vote]]:
    """(other, model) -> their votes."""
    groups: dict[Pair, list[Vote]] = {}
    for vote in votes:
        other, model = study.items[vote.item].models
        groups.setdefault((other, model), []).append(vote)
    return groups


def pair_result(study: Study, pair: Pair, votes: Sequence[Vote]) -> PairResult:
    other, model = pair
    by_category: dict[str, list[Vote]] = {}
    for vote in votes:
        category = study.rows[study.items[vote.item].row].category
        if category:
            by_category.setdefault(category, []).append(vote)
    rates = {name: win_rate(study, model, group) for name, group in by_category.items()}
    return PairResult(
        model=model,
        other=other,
        wins=sum(vote.chosen == model for vote in votes),
        losses=sum(vote.chosen == other for vote in votes),
        ties=sum(vote.choice == "tie" for vote in votes),
        rate=win_rate(study, model, votes),
        by_category=rates,
    )


def win_rate(study: Study, model: str, votes: Sequence[Vote]) -> Interval:
    values = [won(vote, model) for vote in votes]
    return mean_interval(votes_of(study, votes, values), is_share=True)


def won(vote: Vote, model: str) -> float:
    """1 for a vote for the model, 0 against it, 0.5 for a tie."""
    if vote.choice == "tie":
        return 0.5
    return float(vote.chosen == model)


def strengths(study: Study, votes: Sequence[Vote]) -> list[Strength]:
    """Bradley-Terry strengths; none unless votes connect all models with the first."""
    models = study.models
    raters = sorted({vote.rater for vote in votes})
    prompts = sorted({prompt_of(study, vote) for vote in votes})
    draws = Draws.make(len(raters), len(prompts), resamples=STRENGTH_RESAMPLES)
    wins = np.zeros((len(models), len(models)))
    resampled = np.zeros((STRENGTH_RESAMPLES, len(models), len(models)))
    for (other, model), own in by_pair(study, votes).items():
        for winner, loser in ((model, other), (other, model)):
            cell = (models.index(winner), models.index(loser))
            values = [won(vote, winner) for vote in own]
            sums, _ = votes_of(study, own, values).cells(raters, prompts)
            wins[cell] = sums.sum()
            resampled[(slice(None), *cell)] = draws.sums(sums)
    if not connected(wins):
        return []
    is_whole = [connected(table) for table in resampled]
    logs = log_strengths(wins)
    drawn = log_strengths(resampled[is_whole])
    method = method_of(len(raters), len(prompts), STRENGTH_RESAMPLES)
    result = []
    for number, model in enumerate(models):
        value = float(logs[number])
        interval = Interval(value=0.0, low=0.0, high=0.0, method="the reference")
        if number:
            interval = percentiles(value, drawn[:, number], method)
        rate = 1 / (1 + float(np.exp(-value)))
        result.append(Strength(model=model, log_odds=interval, rate=rate))
    return result


def connected(wins: np.ndarray) -> bool:
    """Whether comparisons lead from the first model to every other."""
    met = (wins + wins.T) > 0
    reached = np.zeros(len(wins), dtype=bool)
    reached[0] = True
    for _ in range(len(wins)):
        reached |= met[reached].any(axis=0)
    return bool(reached.all())


def preference(study: Study, vote: Vote) -> float:
    """-1: the first model of the item, 0: a tie, 1: the second."""
    if vote.choice == "tie":
        return 0.0
    return 1.0 if vote.chosen == study.items[vote.item].models[1] else -1.0


# --- ratings --------------------------------------------------------------------------------------


def rating_parts(study: Study, votes: Sequence[Vote]) -> dict[str, object]:
    ratings = []
    agreements = []
    for criterion in CRITERIA:
        for model in study.models:
            line = rating_result(study, votes, criterion, model)
            if line is not None:
                ratings.append(line)
        agreements.append(agreement(study, votes, criterion, partial(rating_of, criterion)))
    return {"ratings": ratings, "agreement": agreements}


def rating_of(criterion: str, study: Study, vote: Vote) -> float:
    return float(getattr(vote, criterion))


def rating_result(
    study: Study, votes: Sequence[Vote], criterion: str, model: str
) -> RatingResult | None:
    own = of_model(study, votes, model)
    if not own:
        return None
    values = [float(getattr(vote, criterion)) for vote in own]
    return RatingResult(
        model=model,
        criterion=criterion,
        votes=len(own),
        mean=mean_interval(votes_of(study, own, values)),
        difference=rating_difference(study, votes, criterion, model),
    )


def rating_difference(
    study: Study, votes: Sequence[Vote], criterion: str, model: str
) -> Interval | None:
    """A model's ratings minus the first model's, of the same rater on the same row."""
    if model == study.models[0]:
        return None
    first = {}
    for vote in of_model(study, votes, study.models[0]):
        first[vote.rater, study.items[vote.item].row] = getattr(vote, criterion)
    pairs = []
    differences = []
    for vote in of_model(study, votes, model):
        other = first.get((vote.rater, study.items[vote.item].row))
        if other is not None:
            pairs.append(vote)
            differences.append(float(getattr(vote, criterion) - other))
    if not pairs:
        return None
    return mean_interval(votes_of(study, pairs, differences))


def of_model(study: Study, votes: Sequence[Vote], model: str) -> list[Vote]:
    return [vote for vote in votes if study.items[vote.item].models == [model]]


# --- ABX ------------------------------------------------------------------------------------------


def abx_parts(study: Study, votes: Sequence[Vote]) -> dict[str, object]:
    lines = []
    for (other, model), own in by_pair(study, votes).items():
        values = [float(vote.is_correct) for vote in own]
        correct = int(sum(values))
        share = guessing.detectable(len(own))
        lines.append(
            AbxResult(
                model=model,
                other=other,
                correct=correct,
                votes=len(own),
                share=mean_interval(votes_of(study, own, values), is_share=True),
                p_value=guessing.p_value(correct, len(own)),
                needed=guessing.needed(len(own)),
                detectable=share,
                detectable_seen=None if share is None else guessing.seen(share),
            )
        )
    return {"abx": lines}


# --- for all --------------------------------------------------------------------------------------


def votes_of(study: Study, votes: Sequence[Vote], values: Sequence[float]) -> Votes:
    raters = [vote.rater for vote in votes]
    return Votes(raters, [prompt_of(study, vote) for vote in votes], values)


def prompt_of(study: Study, vote: Vote) -> int:
    return study.rows[study.items[vote.item].row].prompt_number


def agreement(study: Study, votes: Sequence[Vote], question: str, value: Value) -> Agreement:
    """Alpha over the items."""
    raters = sorted({vote.rater for vote in votes})
    table = np.full((len(raters), len(study.items)), np.nan)
    for vote in votes:
        table[raters.index(vote.rater), vote.item] = value(study, vote)
    level: Level = "ordinal"
    return Agreement(question=question, level=level, alpha=alpha(table, level))


PARTS = {"pairs": pair_parts, "ratings": rating_parts, "abx": abx_parts}
