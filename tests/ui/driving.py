"""How the browser tests drive a page: wait for it, find a block on its map, choose, read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from workbench.records import Teacher
from workbench.ui import draft

from . import synthetic

HOST = "#heat .map-host"
TEACHER = synthetic.teacher(24)
# The middle of a teacher block in page pixels: walk the scene to the block's mark, adding the
# offsets of its groups.
PLACE = """at => {
  const host = document.querySelector('#heat .map-host'), canvas = host.querySelector('canvas').getBoundingClientRect();
  const walk = (item, x, y) => {
    if (item.datum?.mark && item.datum.at === at && item.bounds) {
      return [x + (item.bounds.x1 + item.bounds.x2) / 2, y + (item.bounds.y1 + item.bounds.y2) / 2];
    }
    for (const child of item.items || []) {
      const found = walk(child, x + (item.marktype ? 0 : item.x || 0), y + (item.marktype ? 0 : item.y || 0));
      if (found) return found;
    }
  };
  const origin = host.view.origin(), found = walk(host.view.scenegraph().root, 0, 0);
  return found && [canvas.left + origin[0] + found[0], canvas.top + origin[1] + found[1]];
}"""


def fresh(app, teacher: Teacher = TEACHER) -> None:
    """Nothing marked; and a synthetic teacher is the one that was worked on last, so the page opens
    on it, not on the bundled one.
    """
    draft.path_of(app.workspace, teacher).unlink(missing_ok=True)
    draft.change(app.workspace, teacher, 0, lambda begun: begun)


def until(what: Callable[[], object], seconds: float = 45) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.05)


def ready(tab) -> None:
    tab.page.wait_for_selector(f"{HOST} canvas", timeout=90000)
    until(
        lambda: tab.page.evaluate(
            "document.querySelector('#heat .map-host').view?.data('marks').length > 0"
        )
    )


def places(tab, blocks: list[int]) -> list[list[float]]:
    """Where blocks are, once they are drawn and in view: a page that gets its scroll bar draws its
    map again.
    """
    tab.page.locator(HOST).first.scroll_into_view_if_needed()
    found: list[list[float]] = []

    def drawn() -> bool:
        found[:] = tab.page.evaluate(f"blocks => blocks.map({PLACE})", blocks)
        return all(found)

    until(drawn)
    return found


def place(tab, at: int) -> list[float]:
    return places(tab, [at])[0]


def click(tab, at: int, key: str = "") -> None:
    """Click a block, with a key held down where one is named."""
    x, y = place(tab, at)
    if key:
        tab.page.keyboard.down(key)
    tab.page.mouse.click(x, y)
    if key:
        tab.page.keyboard.up(key)


def drag(tab, first: int, last: int) -> None:
    way = places(tab, list(range(first, last + 1)))
    tab.page.mouse.move(*way[0])
    tab.page.mouse.down()
    for x, y in way:
        tab.page.mouse.move(x, y)
    tab.page.mouse.up()


def says(tab, selector: str, text: str, seconds: float = 45) -> None:
    until(lambda: text in tab.page.locator(selector).inner_text(), seconds)


def painted(tab) -> list[str]:
    return tab.page.evaluate(
        "document.querySelector('#heat .map-host').view.data('marks').map(row => row.mark)"
    )


def clean(tab) -> None:
    assert not tab.outside, f"left the machine: {tab.outside}"
    assert not tab.errors, f"the page said: {tab.errors}"


def picture(tab, name: str, full_page: bool = True) -> None:
    """Keep a picture of the page as it is, where $WORKBENCH_SHOTS names a folder."""
    if folder := os.environ.get("WORKBENCH_SHOTS"):
        tab.page.screenshot(path=Path(folder) / name, full_page=full_page)


def choose(tab, field: str, option: str) -> None:
    tab.page.locator(f"#{field} input").first.click()
    tab.page.get_by_role("option", name=option).first.click()


def panel(tab, name: str) -> None:
    """Open a tab under the map; in a narrow window the last ones are in a menu."""
    found = tab.page.locator("#work").get_by_role("tab", name=name)
    if not found.count() or not found.first.is_visible():
        tab.page.locator("#work .overflow-menu > button").first.click()
        found = tab.page.locator("#work .overflow-dropdown button", has_text=name)
    found.first.click()


def drawn(tab, figure: str) -> None:
    """A figure has been drawn in the tab that is open."""
    tab.page.wait_for_selector(f"#{figure} canvas", timeout=60000)


def points(tab) -> int:
    return int(tab.page.locator("#curve .curve-host").get_attribute("data-points") or 0)
