"""What raters see: every pair in both orders, every item as often, drawn per rater."""

from __future__ import annotations

from collections import Counter

import pytest

from workbench.study.sheets import sheet

from . import studies


@pytest.mark.parametrize("kind", ["pairs", "abx"])
def test_two_raters_see_every_pair_once_in_each_order(kind: str):
    study = studies.study(kind)
    seen = []
    for rater in (4, 5):
        for shown in sheet(study, rater):
            seen.append((shown.check, shown.number, shown.slots["a"], shown.slots["b"]))
    orders = Counter(seen)
    assert set(orders.values()) == {1}
    for check, number, left, right in orders:
        assert (check, number, right, left) in orders


def test_one_rater_sees_each_model_about_as_often_on_either_side():
    study = studies.study("pairs", models=("teacher", "student"), checks=0, prompts=20)
    for rater in range(6):
        lefts = [shown.slots["a"] for shown in sheet(study, rater)]
        assert lefts.count("teacher") == lefts.count("student")


def test_order_differs_from_rater_to_rater_and_is_the_same_after_a_restart():
    study = studies.study("pairs")
    orders = []
    for rater in range(8):
        orders.append([(shown.check, shown.number) for shown in sheet(study, rater)])
    assert len(set(map(tuple, orders))) == 8
    assert sheet(study, 3) == sheet(study, 3)
    assert sheet(study, 3) != sheet(studies.study("pairs", seed=1), 3)


DRAW = [(4, "student-b"), (1, "teacher"), (8, "student-b"), (7, "teacher"), (5, "student-b")]


def test_the_draw_is_the_same_in_every_version_of_python():
    """A study may outlive a Python version: this fails where its raters would be dealt anew."""
    study = studies.study("pairs", prompts=3, seeds=1, checks=1)
    shown = sheet(study, 0)[:5]
    assert [(item.number, item.slots["a"]) for item in shown] == DRAW


@pytest.mark.parametrize("kind", ["pairs", "ratings", "abx"])
def test_items_are_judged_about_equally_often_where_raters_get_a_part(kind: str):
    study = studies.study(kind, per_rater=9, raters=40)
    counts: Counter[int] = Counter()
    for rater in range(40):
        shown = [item for item in sheet(study, rater) if not item.check]
        assert len(shown) == 9 and len({item.number for item in shown}) == 9
        counts.update(item.number for item in shown)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert len(counts) == len(study.items)


def test_a_rater_of_ratings_gets_all_models_of_a_row():
    study = studies.study("ratings", per_rater=7)
    rows = Counter(study.items[shown.number].row for shown in sheet(study, 0) if not shown.check)
    assert set(rows.values()) == {3}


def test_x_is_a_fair_coin():
    study = studies.study("abx", prompts=50)
    is_left = []
    for rater in range(20):
        is_left += [shown.slots["x"] == shown.slots["a"] for shown in sheet(study, rater)]
    share = sum(is_left) / len(is_left)
    assert abs(share - 0.5) < 4 * (0.25 / len(is_left)) ** 0.5


def test_attention_checks_lie_among_the_items():
    study = studies.study("pairs", checks=4)
    places = []
    for rater in range(10):
        shown = sheet(study, rater)
        own = [place for place, item in enumerate(shown) if item.check]
        assert len(own) == 4
        places.append(tuple(own))
    assert len(set(places)) == 10
