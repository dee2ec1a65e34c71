"""`workbench study create`."""

from __future__ import annotations

from typing import ClassVar, Literal

from . import fields
from .base import VerbSpec, option
from .values import Names


class StudySpec(VerbSpec):
    """Make a blind study from the pictures of comparisons.

    Raters are shown pictures without knowing which model made them: pairs to choose from, single
    pictures to rate, or ABX, whether anyone can tell the student from the teacher at all.
    """

    verb: ClassVar[str] = "study create"

    comparisons: list[str] = option(
        about="Comparisons of the same prompts, seeds and size: folders or names in the workspace.",
        label="Comparisons",
        positional=True,
        metavar="COMPARISONS",
        place="file-or-folder",
        min_length=1,
    )
    out: str | None = fields.out("the study")
    kind: Literal["pairs", "ratings", "abx"] = option(
        "pairs", "What raters are asked", label="Kind"
    )
    models: Names | None = option(
        None,
        "Models to show, separated by commas; the first one is what others are compared with.",
        label="Models",
        usual="all of the comparisons",
    )
    students_only_with_first: bool = option(
        False, "In pairs, show each student with the first model only.", label="No student pairs"
    )
    raters: int = option(20, "Raters at most.", label="Raters", ge=1, le=10_000)
    per_rater: int | None = option(
        None,
        "Items that each rater judges, attention checks not counted.",
        label="Items per rater",
        usual="all",
        ge=1,
    )
    prompts: int | None = option(
        None, "Prompts to show, evenly spread over the suite.", label="Prompts", usual="all", ge=1
    )
    checks: int = option(3, "Attention checks per rater.", label="Attention checks", ge=0, le=50)
    most_failed: int = option(
        1, "Attention checks that a rater may fail and still count.", label="May fail", ge=0
    )
    seed: int = option(0, "Seed of all draws: sides, order, X.", label="Seed", ge=0)
    invited_only: bool = option(
        False,
        "No link for everyone: each rater has a link of their own (`workbench study links`).",
        label="Invited only",
    )
