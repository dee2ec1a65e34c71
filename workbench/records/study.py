"""A blind study: what raters judge, and their votes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .record import Record

StudyKind = Literal["pairs", "ratings", "abx"]
Choice = Literal["a", "b", "tie"]
Slot = Literal["a", "b", "x", "one"]  # places on the raters' page
CRITERIA = ("quality", "alignment")  # of ratings: image quality and text alignment, 1 to 5
DAMAGED = "*damaged"  # in place of a model's name: a spoiled picture of an attention check


class StudyRow(Record):
    """One prompt and seed. prompt_number: the same for all seeds of a prompt. number: of the picture
    in the comparison. pictures: model -> file name in the study's folder `pictures`.
    """

    prompt: str
    prompt_number: int
    number: int
    seed: int
    category: str = ""
    pictures: dict[str, str]


class StudyItem(Record):
    """What a rater judges at once: pictures of one row. models: two for pairs and ABX, in the order
    of the study's models; one for ratings.
    """

    row: int
    models: list[str]


class Study(Record):
    """`study.json` of a study's folder.

    models: in the order of the comparison; the first one is what others are compared with. checks:
    items whose right answer is known. per_rater: items that each rater judges; null: all of them.
    checks_per_rater: of `checks`, among these. most_failed: attention checks that a rater may fail
    and still count. seed: of all draws. picture_bytes: length of every picture as it is sent.
    comparisons: where the pictures come from.
    """

    what: ClassVar[str] = "study"
    kind: StudyKind
    models: list[str] = Field(min_length=1)
    rows: list[StudyRow] = Field(min_length=1)
    items: list[StudyItem] = Field(min_length=1)
    checks: list[StudyItem] = Field(default_factory=list)
    per_rater: int | None = None
    checks_per_rater: int = 0
    most_failed: int = 1
    raters: int
    seed: int = 0
    picture_bytes: int
    invited_only: bool = False
    show_prompt: bool = True
    comparisons: list[str] = Field(default_factory=list)


class Seat(Record):
    """A line of votes.jsonl: a rater has begun. time: seconds since the epoch."""

    what: ClassVar[str] = "seat"
    event: Literal["seat"] = "seat"
    rater: int
    time: float


class Vote(Record):
    """A line of votes.jsonl: one rater's judgement of one item.

    position: of the item in the rater's order. item: number in the study's items, or in its checks
    where `check` is true. slots: place on the page -> model that was shown there. choice: of pairs
    and ABX. quality, alignment: of ratings, 1 to 5. seconds: from showing to voting, as the rater's
    browser measured it. time: when it was saved, seconds since the epoch.
    """

    what: ClassVar[str] = "vote"
    event: Literal["vote"] = "vote"
    rater: int
    position: int
    item: int
    check: bool = False
    slots: dict[Slot, str]
    choice: Choice | None = None
    quality: int | None = Field(None, ge=1, le=5)
    alignment: int | None = Field(None, ge=1, le=5)
    seconds: float | None = None
    time: float = 0.0

    @property
    def chosen(self) -> str | None:
        """The model that was chosen; None for a tie and for ratings."""
        if self.choice is None or self.choice == "tie":
            return None
        return self.slots[self.choice]

    @property
    def is_correct(self) -> bool:
        """ABX: whether the side was chosen that X is of."""
        return self.chosen is not None and self.chosen == self.slots.get("x")

    @property
    def passes_check(self) -> bool:
        """Whether an attention check was answered as by anyone who looks: not the damaged picture of
        a pair, the side that X is of, at most 2 of 5 for the quality of a damaged picture.
        """
        if "one" in self.slots:
            return self.quality is not None and self.quality <= 2
        if "x" in self.slots:
            return self.is_correct
        return self.chosen is not None and self.chosen != DAMAGED
