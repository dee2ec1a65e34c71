"""Every page of the app, in light and in dark: text can be read, buttons and fields have names, the
focus can be seen.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.records import Comparison
from workbench.workspace.store import Store

from . import synthetic
from .conftest import TRAINED, App
from .driving import click, drawn, fresh, panel, picture, ready, says, until
from .readable import nameless, pale, unmarked

pytestmark = pytest.mark.browser
FORMS = ("Distill", "Profile", "Add a teacher")
STEPS = 60  # presses of the Tab key: the whole first page


def with_results(app: App) -> None:
    """A finished job, one that failed, and a comparison with its pictures."""
    store = Store(app.workspace)
    synthetic.distilled(store, TRAINED)
    record = synthetic.comparison()
    add_pictures(app.workspace / "comparisons" / "one", record)


def add_pictures(folder: Path, record: Comparison) -> None:
    from PIL import Image

    for files in record.images.values():
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (96, 96), (200, 80, 40)).save(folder / file)
    record.save(folder / "comparison.json")


def look(tab, scheme: str, name: str) -> None:
    """Nothing on screen is pale or without a name."""
    picture(tab, f"readable-{scheme}-{name.replace(' ', '-')}.png")
    found = pale(tab)
    assert not found, f"{name} in {scheme}: {found}"
    without = nameless(tab)
    assert not without, f"{name} in {scheme}: {without}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_and_buttons_have_names_on_the_first_page(app: App, open_tab, scheme: str):
    fresh(app)
    tab = open_tab(app.url, color_scheme=scheme)
    ready(tab)
    click(tab, 4)
    says(tab, "#chosen", "1 selected: 4")
    tab.page.locator("#mark-merge").click()
    says(tab, "#yaml", "gain: 2")
    click(tab, 9)
    says(tab, "#chosen", "1 selected: 9")
    tab.page.locator("#mark-drop").click()
    says(tab, "#budget", "22")
    look(tab, scheme, "propose")
    for name, figure in (
        ("Block", "block-profile"),
        ("Compare maps", ""),
        ("Diagram", "plan-picture"),
        ("Preview", ""),
        ("Table", ""),
    ):
        panel(tab, name)
        if figure:
            drawn(tab, figure)
        look(tab, scheme, name)
    for name in FORMS:
        tab.page.locator("#launch").get_by_role("tab", name=name).click()
        look(tab, scheme, name)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_and_buttons_have_names_of_jobs_and_comparisons(
    app: App, open_tab, scheme: str
):
    fresh(app)
    with_results(app)
    tab = open_tab(app.url, color_scheme=scheme)
    ready(tab)
    tab.page.get_by_role("tab", name="Jobs").click()
    says(tab, "#jobs", "distill student")
    says(tab, "#job-head", "done")
    look(tab, scheme, "jobs")
    tab.page.get_by_role("tab", name="Compare", exact=True).click()
    says(tab, "#costs", "student-12")
    drawn(tab, "scores")
    look(tab, scheme, "compare")
    for name in ("One prompt, live", "New comparison"):
        tab.page.get_by_role("tab", name=name).click()
        look(tab, scheme, name)


def test_the_focus_can_be_seen_on_everything_that_the_tab_key_reaches(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    assert unmarked(tab, STEPS) == []


def test_pale_text_and_a_button_without_a_name_are_found(app: App, open_tab):
    """That the checks of this file can fail; black on white is 21, #777 on white 4.48 to 1."""
    tab = open_tab(app.url)
    ready(tab)
    until(lambda: not pale(tab))
    tab.page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', \"<div style='background: white'>"
        "<p style='color: #777'>pale</p><p style='color: #767676'>dark enough</p>"
        "<p style='color: #777; font-size: 24px'>large</p><p style='color: #0008'>see through</p>"
        "<button style='width: 20px; height: 20px'></button></div>\")"
    )
    assert [(row["text"], row["ratio"]) for row in pale(tab)] == [
        ("pale", 4.48),
        ("see through", 4.48),
    ]
    assert len(nameless(tab)) == 1
