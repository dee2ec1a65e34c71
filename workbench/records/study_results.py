"""What a blind study came to."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from .record import Record
from .study import StudyKind


class Interval(Record):
    """A value with its 95 % interval; null where there is too little to say one. method: how the
    interval was computed.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: str = ""


class PairResult(Record):
    """Votes of `model` against `other`. rate: share of votes that `model` won, a tie counting as
    half; 0.5 = equal, higher = `model` is preferred.
    """

    model: str
    other: str
    wins: int
    losses: int
    ties: int
    rate: Interval
    by_category: dict[str, Interval] = Field(default_factory=dict)


class Strength(Record):
    """Bradley-Terry strength of a model: log odds of winning against the first model, whose own is
    0; higher = preferred. rate: the win rate against the first model that follows from it.
    """

    model: str
    log_odds: Interval
    rate: float


class RatingResult(Record):
    """Mean opinion score of a model on one criterion, 1 to 5, higher = better. difference: to the
    first model, of the same raters and prompts; null for the first model itself.
    """

    model: str
    criterion: str
    votes: int
    mean: Interval
    difference: Interval | None = None


class AbxResult(Record):
    """Whether raters tell `model` from `other`. share: of correct answers; 0.5 = guessing.

    p_value: exact binomial probability of at least that many correct answers from guessing. needed:
    correct answers from which p is at most 0.05; null where even all would not do. detectable: the
    smallest true share of correct answers that this many votes find with 80 % probability.
    detectable_seen: the same as the share of trials in which the difference is really seen
    (a correct answer comes from seeing it, or else from guessing).
    """

    model: str
    other: str
    correct: int
    votes: int
    share: Interval
    p_value: float
    needed: int | None
    detectable: float | None
    detectable_seen: float | None


class Agreement(Record):
    """Krippendorff's alpha: 1 = all raters agree, 0 = as by chance; null where nothing was judged
    twice, or all votes are equal.
    """

    question: str
    level: str
    alpha: float | None


class RaterResult(Record):
    """One rater. left_share: of votes for the picture on the left, ties left out. correct: of ABX,
    with its exact p, multiplied by Holm's factor where there are several raters.
    """

    rater: int
    votes: int
    of: int
    checks: int
    failed: int
    counted: bool
    left_share: float | None = None
    seconds: float | None = None
    correct: int | None = None
    p_value: float | None = None


class StudyResults(Record):
    """All figures of a study at one moment. left_share: of all counted votes for one of the two
    sides; far from 0.5 = raters prefer a side. unread: damaged lines of votes.jsonl.
    """

    what: ClassVar[str] = "results of a study"
    kind: StudyKind
    models: list[str]
    votes: int
    raters: list[RaterResult] = Field(default_factory=list)
    pairs: list[PairResult] = Field(default_factory=list)
    strengths: list[Strength] = Field(default_factory=list)
    ratings: list[RatingResult] = Field(default_factory=list)
    abx: list[AbxResult] = Field(default_factory=list)
    agreement: list[Agreement] = Field(default_factory=list)
    left_share: Interval | None = None
    unread: int = 0

    @property
    def counted(self) -> list[int]:
        """Raters whose votes are in the figures."""
        return [rater.rater for rater in self.raters if rater.counted]

    @property
    def excluded(self) -> list[int]:
        """Raters who failed more attention checks than the study allows."""
        return [rater.rater for rater in self.raters if not rater.counted]
