"""Intervals of scores."""

import pytest

from workbench.comparison.statistics import summary


def test_a_category_in_which_all_passed_is_still_uncertain():
    items = [
        {"prompt": f"{c}{i}", "category": c, "index": f"{c}{i}"} for c in "ab" for i in range(40)
    ]
    scores = summary([1.0] * 40 + [0.25, 0.75] * 20, items)
    # Wilson, 40 of 40
    assert scores["intervals"]["a"] == [pytest.approx(0.912, abs=1e-3), pytest.approx(1.0)]
    low, high = scores["intervals"]["b"]
    assert low < 0.5 < high
