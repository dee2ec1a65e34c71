"""The raters' page in a browser: keys, reload, and all that the browser receives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.study import studies
from workbench.study import create, votes
from workbench.study.booth import Booth
from workbench.study.create import Design
from workbench.web.raters import RaterPages

from .conftest import free_port
from .driving import until

pytestmark = pytest.mark.browser


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Booth, str]]:
    """A study served in a thread, and its link for raters."""
    import uvicorn

    source = studies.with_pictures(
        tmp_path / "cmp", ((120, 130, 140), (200, 60, 60)), prompts=3, seeds=1
    )
    folder = tmp_path / "study"
    list(create.create([source], Design(request.param, raters=4, checks=1), folder))
    booth = Booth(folder)
    port = free_port()
    config = uvicorn.Config(RaterPages(booth).app(), port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield booth, f"http://127.0.0.1:{port}/join/{booth.codes.open_link()}"
    server.should_exit = True
    thread.join(30)
    booth.close()


def at(tab, text: str) -> None:
    until(lambda: tab.page.locator("#count").inner_text() == text)
    until(lambda: tab.page.locator("#answers button").first.is_enabled())


@pytest.mark.parametrize("served", ["pairs"], indirect=True)
def test_a_rater_votes_with_keys_and_goes_on_after_a_reload(served, open_tab):
    booth, link = served
    tab = open_tab("about:blank")
    received: list[str] = []

    def keep(answer) -> None:
        received.append(f"{answer.url} {answer.headers}")
        if answer.ok and "text" in answer.headers.get("content-type", ""):
            received.append(answer.text())

    tab.page.on("response", keep)
    tab.page.goto(link)
    tab.page.get_by_role("button", name="Begin").click()
    at(tab, "1 of 4")
    tab.page.keyboard.press("1")
    at(tab, "2 of 4")
    tab.page.reload()
    at(tab, "2 of 4")
    tab.page.keyboard.press("2")
    at(tab, "3 of 4")
    tab.page.keyboard.press("3")
    at(tab, "4 of 4")
    seen = tab.page.content()
    tab.page.get_by_role("button", name="Right").click()
    until(lambda: "That was all" in tab.page.locator("#question").inner_text())
    choices = [vote.choice for vote in votes.read(booth.folder).of_rater(0)]
    assert choices == ["a", "tie", "b", "b"]
    everything = (
        f"{received} {seen} {tab.asked} {tab.page.evaluate('JSON.stringify(localStorage)')}"
    )
    for secret in ("teacher", "student", "damaged", booth.codes.secret, str(booth.folder)):
        assert secret not in everything
    assert booth.codes.rater(0) not in everything  # no script and no address has it
    assert not tab.outside and not tab.errors


@pytest.mark.parametrize("served", ["abx", "ratings"], indirect=True)
def test_the_other_kinds_are_answered_with_keys(served, open_tab):
    booth, link = served
    tab = open_tab(link, color_scheme="dark", viewport={"width": 420, "height": 800})
    tab.page.get_by_role("button", name="Begin").click()
    keys = ["b"] if booth.study.kind == "abx" else ["4", "2", "Enter"]
    total = len(booth.sheet(0))
    for position in range(total):
        at(tab, f"{position + 1} of {total}")
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for key in keys:
            tab.page.keyboard.press(key)
    until(lambda: "That was all" in tab.page.locator("#question").inner_text())
    for vote in votes.read(booth.folder).of_rater(0):
        assert vote.choice == "b" or (vote.quality, vote.alignment) == (4, 2)
    assert not tab.outside and not tab.errors
