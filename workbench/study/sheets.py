"""What each rater sees, in which order and on which side: drawn from the study's seed.

Raters come in groups of two for pairs and ABX: the second sees the items of the first with sides
exchanged, so that every pair is seen once in each order. Which picture X is, is a fair coin for
every rater and item: that makes the binomial test of ABX exact, whoever rates how often.

Draws use `random()` alone: Python promises that its numbers stay the same between versions, and a
study may outlive one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from ..records import Slot, Study, StudyItem

Element = TypeVar("Element")


@dataclass(frozen=True)
class Shown:
    """One item as a rater sees it. number: of the study's items, or checks. slots: place on the page
    -> model.
    """

    item: StudyItem
    number: int
    check: bool
    slots: dict[Slot, str]


def group_size(study: Study) -> int:
    """Raters who judge the same items."""
    return 1 if study.kind == "ratings" else 2


def sheet(study: Study, rater: int) -> list[Shown]:
    """A rater's items in order. rater: from 0."""
    group = rater // group_size(study)
    sides = Random(f"{study.seed} sides of group {group}")
    coins = Random(f"{study.seed} coins of rater {rater}")
    is_exchanged = rater % group_size(study) == 1
    shown = []
    for check, numbers in ((False, item_numbers(study, group)), (True, checks_of(study, group))):
        items = study.checks if check else study.items
        first_left = balanced(len(numbers), sides)
        for number, is_left in zip(numbers, first_left, strict=True):
            slots = slots_of(items[number].models, is_left != is_exchanged)
            if study.kind == "abx":
                slots["x"] = slots["a"] if coins.random() < 0.5 else slots["b"]
            shown.append(Shown(items[number], number, check, slots))
    return shuffled(shown, Random(f"{study.seed} order of rater {rater}"))


def slots_of(models: Sequence[str], first_is_left: bool) -> dict[Slot, str]:
    if len(models) == 1:
        return {"one": models[0]}
    if first_is_left:
        return {"a": models[0], "b": models[1]}
    return {"a": models[1], "b": models[0]}


def shuffled(elements: Sequence[Element], draws: Random) -> list[Element]:
    keys = [draws.random() for _ in elements]
    order = sorted(range(len(elements)), key=keys.__getitem__)
    return [elements[place] for place in order]


def balanced(count: int, draws: Random) -> list[bool]:
    """As many of one as of the other, give or take one, in random order."""
    start = draws.random() < 0.5
    return shuffled([(place % 2 == 0) == start for place in range(count)], draws)


def item_numbers(study: Study, group: int) -> list[int]:
    """The items of a group of raters, numbered: all, or `per_rater` of them, so that all items get
    about equally many raters.
    """
    units = units_of(study)
    if study.per_rater is None or study.per_rater >= len(study.items):
        chosen = units
    else:
        count = max(1, study.per_rater // len(units[0]))
        ring = shuffled(units, Random(f"{study.seed} items"))
        start = group * count
        chosen = [ring[place % len(ring)] for place in range(start, start + count)]
    numbers = []
    for unit in chosen:
        numbers += unit
    return shuffled(numbers, Random(f"{study.seed} items of group {group}"))


def units_of(study: Study) -> list[list[int]]:
    """Items that a rater gets together: for ratings all models of a row, which are compared."""
    if study.kind != "ratings":
        return [[number] for number in range(len(study.items))]
    by_row: dict[int, list[int]] = {}
    for number, item in enumerate(study.items):
        by_row.setdefault(item.row, []).append(number)
    return list(by_row.values())


def checks_of(study: Study, group: int) -> list[int]:
    """The attention checks of a group of raters, numbered."""
    draws = Random(f"{study.seed} checks of group {group}")
    return shuffled(range(len(study.checks)), draws)[: study.checks_per_rater]
