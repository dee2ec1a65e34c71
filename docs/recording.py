"""Record the README's moving picture: `python docs/recording.py`. Needs a Chromium and Playwright.

A plan made by clicking: a range of blocks is selected and merged, one is dropped, a rule proposes
the rest. Each frame is a screenshot, with a ring where the pointer is.
"""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from screenshots import IMAGES, opened

from tests.ui.driving import PLACE

WIDTH, HEIGHT = 1100, 1400  # tall enough for the map and the panels below it without scrolling
MARGIN = 56  # under the map, for the caption
COLOURS = 96  # of the palette that all frames share
# the pointer, which screenshots leave out
RING = """([x, y]) => {
  let ring = document.querySelector('#recording-ring');
  if (!ring) {
    ring = document.createElement('div');
    ring.id = 'recording-ring';
    ring.style = `position: fixed; width: 22px; height: 22px; border: 3px solid #e11d48; z-index: 9999;
      border-radius: 50%; transform: translate(-50%, -50%); pointer-events: none`;
    document.body.append(ring);
  }
  ring.style.left = `${x}px`;
  ring.style.top = `${y}px`;
}"""
CAPTION = """words => {
  let caption = document.querySelector('#recording-caption');
  if (!caption) {
    caption = document.createElement('div');
    caption.id = 'recording-caption';
    caption.style = `position: fixed; left: 0; right: 0; height: 56px; z-index: 9999; padding: 14px; text-align: center;
      background: #0f172a; color: white; font: 600 18px system-ui, sans-serif; pointer-events: none`;
    document.body.append(caption);
  }
  caption.style.top = `${document.querySelector('#heat').getBoundingClientRect().bottom}px`;
  caption.textContent = words;
}"""


@dataclass
class Recording:
    """Frames of a page, and for how many milliseconds each is shown."""

    page: Page
    frames: list[Image.Image] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)

    def shot(self, milliseconds: int) -> None:
        top = self.page.locator("#budget").bounding_box()
        map_ = self.page.locator("#heat").bounding_box()
        assert top is not None and map_ is not None
        height = map_["y"] + map_["height"] + MARGIN - top["y"]
        png = self.page.screenshot(
            clip={"x": 0, "y": top["y"] - 8, "width": WIDTH, "height": height}
        )
        self.frames.append(Image.open(io.BytesIO(png)).convert("RGB"))
        self.durations.append(milliseconds)

    def click(self, block: int, modifier: str = "") -> None:
        """Click a block of the map, with a key held down where one is named."""
        x, y = self.page.evaluate(PLACE, block)
        self.page.evaluate(RING, [x, y])
        self.shot(500)
        if modifier:
            self.page.keyboard.down(modifier)
        self.page.mouse.click(x, y)
        if modifier:
            self.page.keyboard.up(modifier)
        self.settle(700)

    def key(self, key: str) -> None:
        """Press a key on the map, the pointer out of the way of its tooltip."""
        self.page.mouse.move(1, 1)
        self.page.keyboard.press(key)
        self.settle(1300)

    def press(self, button: str) -> None:
        """Click the button with this id."""
        box = self.page.locator(button).bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.evaluate(RING, [x, y])
        self.shot(500)
        self.page.mouse.click(x, y)
        self.settle(1300)

    def say(self, words: str) -> None:
        """What the next frames show, along the lower edge."""
        self.page.evaluate(CAPTION, words)

    def settle(self, milliseconds: int) -> None:
        """Wait until the page has answered, then take a frame."""
        self.page.wait_for_timeout(1500)
        self.shot(milliseconds)

    def save(self, path: Path) -> None:
        palette = self.frames[-1].quantize(COLOURS)
        frames = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames
        ]
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=self.durations,
            loop=0,
            optimize=True,
        )


def plan_by_clicking(recording: Recording) -> None:
    recording.say("How sensitive the teacher is to each block, at each timestep")
    recording.settle(2200)
    recording.say("Shift-click selects a range")
    recording.click(6)
    recording.click(8, modifier="Shift")
    recording.say("M merges the range into one student block")
    recording.key("m")
    recording.say("D drops a block")
    recording.click(15)
    recording.key("d")
    recording.say("A rule proposes a whole plan; it can be edited on")
    recording.press("#propose")
    recording.shot(2500)


def main() -> None:
    with opened(tempfile.mkdtemp(), WIDTH, HEIGHT) as page:
        recording = Recording(page)
        plan_by_clicking(recording)
    recording.save(IMAGES / "plan.gif")


if __name__ == "__main__":
    main()
