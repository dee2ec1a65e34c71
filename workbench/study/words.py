"""Results for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..records import AbxResult, Agreement, Interval, StudyResults

Rows = list[dict[str, Any]]


def report(results: StudyResults, table: Callable[[Rows], str]) -> str:
    """All figures as text. table: draws rows."""
    parts = [summary(results)]
    for rows in (pair_rows(results), strength_rows(results), rating_rows(results)):
        if rows:
            parts.append(table(rows))
    for line in results.abx:
        parts.append(abx_words(line))
    for agreement in results.agreement:
        parts.append(agreement_words(agreement))
    if results.left_share is not None:
        parts.append(f"share of votes for the left side: {with_interval(results.left_share)}")
    if results.raters:
        parts.append(table(rater_rows(results)))
    return "\n\n".join(parts)


def summary(results: StudyResults) -> str:
    """How many votes there are, and whose are left out."""
    line = f"{results.votes} votes of {len(results.counted)} raters"
    if results.excluded:
        names = ", ".join(str(rater + 1) for rater in results.excluded)
        line += f"; left out, with failed attention checks: rater {names}"
    if results.unread:
        line += f"; {results.unread} damaged lines in votes.jsonl were passed over"
    return line


def with_interval(interval: Interval, form: str = ".3f") -> str:
    value = format(interval.value, form)
    if interval.low is None or interval.high is None:
        return value
    return f"{value} ({interval.low:{form}} to {interval.high:{form}})"


def pair_rows(results: StudyResults) -> Rows:
    rows: Rows = []
    for pair in results.pairs:
        row = {"model": pair.model, "against": pair.other, "wins": pair.wins}
        row |= {"ties": pair.ties, "losses": pair.losses}
        rows.append({**row, "win rate": with_interval(pair.rate)})
    return rows


def strength_rows(results: StudyResults) -> Rows:
    if len(results.models) < 3:  # of two models it says what the win rate says
        return []
    rows: Rows = []
    for line in results.strengths:
        odds = with_interval(line.log_odds, "+.2f")
        rate = f"{line.rate:.3f}"
        rows.append({"Bradley-Terry": line.model, "log odds": odds, "wins against first": rate})
    return rows


def rating_rows(results: StudyResults) -> Rows:
    rows: Rows = []
    for line in results.ratings:
        difference = "-"
        if line.difference is not None:
            difference = with_interval(line.difference, "+.2f")
        row = {"criterion": line.criterion, "model": line.model, "votes": line.votes}
        rows.append({**row, "mean": with_interval(line.mean, ".2f"), "difference": difference})
    return rows


def abx_words(line: AbxResult) -> str:
    """What ABX says about one student, and what it could have found."""
    share = with_interval(line.share)
    text = f"{line.model} against {line.other}: {line.correct} of {line.votes} correct, {share}; "
    text += f"p = {line.p_value:.2g} (exact, one-sided). "
    if line.needed is None or line.detectable is None or line.detectable_seen is None:
        return text + "Too few votes to find anything: at least 5 are needed."
    if line.correct >= line.needed:
        text += "Raters can tell them apart."
    else:
        text += "No evidence that raters can tell them apart."
    return text + (
        f" So many votes find a share of {line.detectable:.3f} correct answers with 80 % "
        f"probability: the difference seen in {100 * line.detectable_seen:.0f} % of the trials."
    )


def agreement_words(line: Agreement) -> str:
    alpha = "undefined" if line.alpha is None else f"{line.alpha:.2f}"
    return f"agreement on {line.question}: Krippendorff's alpha {alpha} ({line.level})"


def rater_rows(results: StudyResults) -> Rows:
    rows: Rows = []
    for line in results.raters:
        row: dict[str, Any] = {"rater": line.rater + 1, "votes": f"{line.votes} of {line.of}"}
        row |= {"checks failed": f"{line.failed} of {line.checks}", "counted": line.counted}
        row |= {"left": line.left_share, "seconds per item": line.seconds}
        if line.p_value is not None:
            row |= {"correct": line.correct, "p (Holm)": line.p_value}
        rows.append(row)
    return rows
