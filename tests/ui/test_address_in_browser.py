"""Addresses in a browser, under a path of a proxy and behind a login: what is chosen is in the
address; reload, Back, Forward and a link show it again.

The browser itself is the proxy: it takes the path off each request.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import App, Tab, fill
from .driving import choose, clean, click, panel, ready, says, until

pytestmark = pytest.mark.browser
PATH = "/wb/"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    workspace = fill(tmp_path_factory.mktemp("addresses"), 24)
    app = App(workspace, "auth=('ann', 'secret'), root_path='/wb'").start()
    yield app
    app.kill()


@pytest.fixture(scope="module")
def tab(proxied: App, chromium: object) -> Iterator[Tab]:
    """A window that has logged in at an address: the login keeps it."""
    window = Tab(chromium, "about:blank")
    strip = lambda route: route.continue_(url=route.request.url.replace(PATH, "/", 1))  # noqa: E731
    window.page.route(f"**{PATH}**", strip)
    window.page.goto(at(proxied, "?teacher=synthetic&panel=table&select=3-5,9"))
    window.page.locator("input").first.fill("ann")
    window.page.locator("input[type=password]").fill("secret")
    window.page.get_by_role("button").last.click()
    ready(window)
    window.errors.clear()  # a login is asked for with an error
    yield window
    window.close()


def at(app: App, query: str = "") -> str:
    return app.url.removesuffix("/") + PATH + query


def visit(tab: Tab, address: str) -> None:
    """Leave the page, then open an address.

    Gradio closes its streams when a page begins to wait for another, takes that for a lost
    connection, and loads the page again after two seconds; a click shortly before lets that break
    the waiting off. A blank page has no answer to wait for.
    """
    tab.page.goto("about:blank")
    tab.page.goto(address)


def query(tab: Tab) -> dict[str, str]:
    return tab.page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")


def entries(tab: Tab) -> int:
    return tab.page.evaluate("history.length")


def is_open(tab: Tab, widget: str) -> bool:
    return tab.page.locator(f"#{widget}").is_visible()


def test_a_link_shows_teacher_map_panel_and_selection(proxied: App, tab: Tab):
    says(tab, "#header", "synthetic")
    says(tab, "#chosen", "4 selected: 3-5, 9")
    until(lambda: is_open(tab, "block-table"))
    until(lambda: query(tab).get("map") == "synthetic")
    assert query(tab)["select"] == "3-5,9"
    assert tab.page.evaluate("location.pathname") == PATH
    tab.reload()
    ready(tab)
    says(tab, "#chosen", "4 selected: 3-5, 9")
    until(lambda: is_open(tab, "block-table"))
    clean(tab)


def test_tabs_are_steps_in_the_order_of_the_clicks(proxied: App, tab: Tab):
    visit(tab, at(proxied, "?teacher=synthetic&select=7"))
    ready(tab)
    says(tab, "#chosen", "1 selected: 7")
    before = entries(tab)
    tabs = tab.page.locator("#pages").first
    for name in ("Jobs", "Compare", "Jobs", "Jobs"):
        tabs.get_by_role("tab", name=name, exact=True).click()
    assert entries(tab) == before + 3, "the tab that is open makes no step"
    assert query(tab)["tab"] == "jobs"
    for _ in range(3):
        tab.page.go_back()
    until(lambda: is_open(tab, "heat") and "tab" not in query(tab))
    says(tab, "#chosen", "1 selected: 7")
    tab.page.evaluate("history.go(2)")
    until(lambda: is_open(tab, "compare-message") or is_open(tab, "comparison"))
    assert query(tab)["tab"] == "compare"
    tab.reload()
    until(lambda: is_open(tab, "comparison"))
    assert entries(tab) == before + 3, "what was ahead is still there"
    clean(tab)


def test_back_undoes_the_choice_of_a_teacher(proxied: App, tab: Tab):
    visit(tab, at(proxied, "?teacher=synthetic"))
    ready(tab)
    until(lambda: query(tab).get("map") == "synthetic")
    click(tab, 4)
    says(tab, "#chosen", "1 selected: 4")
    assert query(tab)["select"] == "4"
    panel(tab, "Table")
    before = entries(tab)
    choose(tab, "teacher", "demo (bundled)")
    until(lambda: query(tab)["teacher"] == "demo", 20)
    says(tab, "#header", "demo", 90)
    assert "select" not in query(tab) and entries(tab) == before + 1
    tab.page.go_back()
    says(tab, "#header", "synthetic", 90)
    says(tab, "#chosen", "1 selected: 4")
    assert query(tab)["panel"] == "table" and query(tab)["map"] == "synthetic"
    tab.page.go_back()
    until(lambda: is_open(tab, "propose"))
    clean(tab)


def test_unknown_names_are_one_line_and_nothing_else(proxied: App, tab: Tab):
    visit(tab, at(proxied, "?teacher=synthetic&map=<img src=x onerror=alert(1)>"))
    ready(tab)
    says(tab, "#message", "the address names map '<img src=x")
    assert tab.page.locator("#message img").count() == 0
    assert tab.page.locator("#message .wb-problem").is_visible()
    visit(tab, at(proxied, "?tab=jobs&job=${alert(1)}"))
    until(lambda: is_open(tab, "jobs"))
    says(tab, "#job-message", "the address names job")
    clean(tab)
