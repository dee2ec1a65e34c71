"""The rank of selected blocks' modulation in a real browser: set, shown, counted, taken back and
refused; in the dark and in a narrow window.
"""

from __future__ import annotations

import pytest

from workbench import plans
from workbench.ui import draft

from . import synthetic
from .conftest import App
from .driving import choose, clean, click, drag, fresh, painted, picture, ready, says, until

pytestmark = pytest.mark.browser
AS_THE_PLAN = "plan default (unchanged)"


def test_a_rank_is_set_shown_counted_taken_back_and_refused(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url, color_scheme="light")
    ready(tab)
    budget = tab.page.locator("#budget")
    control = tab.page.locator("#hand-modulation select")
    assert not control.is_enabled(), "nothing is selected"
    drag(tab, 3, 5)
    says(tab, "#chosen", "3 selected")
    until(control.is_enabled)
    assert shown_option(tab) == AS_THE_PLAN
    assert "milliseconds" not in budget.inner_text()

    control.select_option("8")
    says(tab, "#yaml", "modulation: {rank: 8}")
    says(tab, "#budget", "memory and download, not milliseconds")
    assert drawn_ranks(tab) == {3: "r8", 4: "r8", 5: "r8"}
    teacher = synthetic.teacher(24)
    smaller = plans.parameters(draft.load(app.workspace, teacher).plan, teacher)
    assert smaller < teacher.parameters
    assert f"{smaller / 1e6:.3g} M" in budget.inner_text()
    picture(tab, "rank-light.png")
    look_in_the_dark_and_narrow(app, open_tab)

    tab.page.locator("#undo").click()
    until(lambda: "milliseconds" not in budget.inner_text())
    assert f"{teacher.parameters / 1e6:.3g} M" in budget.inner_text()
    until(lambda: shown_option(tab) == AS_THE_PLAN)
    assert drawn_ranks(tab) == {}

    choose(tab, "teacher", "shared modulation")
    says(tab, "#header", "shared modulation")
    until(lambda: len(painted(tab)) == 4)
    click(tab, 1)
    says(tab, "#hand-modulation", "the modulation is shared by all blocks")
    assert not control.is_enabled()
    picture(tab, "rank-refused.png")
    clean(tab)


def drawn_ranks(tab) -> dict[int, str]:
    """Student block -> the mark under it in the picture of the plan, where there is one."""
    rows = tab.page.evaluate("document.querySelector('#heat .map-host').view.data('student')")
    return {row["student"]: row["less"] for row in rows if row["less"]}


def look_in_the_dark_and_narrow(app: App, open_tab) -> None:
    """The list holds there, with the selection's rank in it."""
    tab = open_tab(app.url, color_scheme="dark", viewport={"width": 390, "height": 800})
    ready(tab)
    click(tab, 4)
    says_rank(tab, "rank 8")
    assert drawn_ranks(tab)[4] == "r8"
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    picture(tab, "rank-dark-narrow.png")
    clean(tab)


def shown_option(tab) -> str:
    """What the list shows; empty where the selected blocks differ."""
    return tab.page.locator("#hand-modulation select").evaluate(
        "list => list.selectedOptions[0]?.textContent ?? ''"
    )


def says_rank(tab, rank: str) -> None:
    until(lambda: shown_option(tab) == rank)
    assert tab.page.locator("#hand-modulation select").is_visible()
