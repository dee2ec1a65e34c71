"""Make the pictures of the README: `python docs/screenshots.py [WORKSPACE]`. Needs a Chromium and
Playwright.

The workspace should hold a finished comparison; without one, docs/images/compare.png is left as it
is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import FloatRect, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workbench.ui import launch

IMAGES = Path(__file__).parent / "images"
PORT = int(os.environ.get("PORT", "7897"))


def top(page: Page, selector: str) -> float:
    """Where an element begins on the page, in pixels."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["y"]


def bottom(page: Page, selector: str) -> float:
    """Where an element ends on the page, in pixels."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["y"] + box["height"]


def picture(page: Page, name: str, first: float, last: float) -> None:
    """Save the part of the page between two heights; it must be scrolled to its top."""
    clip: FloatRect = {"x": 0, "y": first, "width": 1280, "height": last - first}
    page.screenshot(path=IMAGES / name, full_page=True, clip=clip)


def sensitivity(page: Page) -> None:
    """The map with a proposal and one merge by hand."""
    page.wait_for_timeout(1500)
    page.locator("#option-gain input").click()
    page.get_by_role("option", name="length").last.click()
    page.locator("#option-init input").click()
    page.get_by_role("option", name="mean").last.click()  # the form of a block has a list, too
    page.locator("#keep-n-0 input[type=number]").fill("16")
    page.locator("#keep-n-0 input[type=number]").press("Tab")
    page.locator("#propose").click()
    page.wait_for_timeout(2500)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    picture(page, "sensitivity.png", 0, bottom(page, "#heat"))


def block(page: Page) -> None:
    """One block by hand, and looked at closely."""
    page.locator("#heat .map-host").focus()
    for key in ("ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.wait_for_timeout(1500)
    page.get_by_role("tab", name="Block").click()
    page.wait_for_timeout(4000)
    page.evaluate("scrollTo(0, 0)")
    picture(page, "block.png", top(page, "#work"), bottom(page, "#work"))


def compare(page: Page) -> None:
    """A prompt that asks for something: two things in an order."""
    page.locator("#pages").get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_timeout(4000)
    for _ in range(200):
        if " left of " in page.locator("#caption").inner_text():
            break
        page.locator("#compare-forth").click()
        page.wait_for_timeout(300)
    page.wait_for_timeout(3000)
    page.screenshot(
        path=IMAGES / "compare.png", clip={"x": 0, "y": 0, "width": 1280, "height": 900}
    )


@contextmanager
def opened(workspace: str, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """The app on a workspace, in a browser of that many pixels, until the block ends."""
    launch(workspace, port=PORT, block=False)
    chromium = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    with sync_playwright() as manager:
        browser = manager.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="light"
        ).new_page()
        page.goto(f"http://127.0.0.1:{PORT}/")
        page.wait_for_selector("#heat canvas", timeout=60000)
        yield page
        browser.close()


def main(workspace: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with opened(workspace) as page:
        sensitivity(page)
        block(page)
        if any((Path(workspace) / "comparisons").glob("*/comparison.json")):
            compare(page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workspace", nargs="?", help="a workspace with a finished comparison")
    main(parser.parse_args().workspace or tempfile.mkdtemp())
