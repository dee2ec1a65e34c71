"""How much of the text that a prompt asks for can be read in the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rapidocr import RapidOCR

from ...records import BadInput
from ..text_recall import recall
from .base import Images, Item, Scorer


class OcrRecall(Scorer):
    """Share of an item's `text` that PP-OCRv6 reads: words, or characters of a Chinese text. The
    mean over pictures; LongText-Bench's own figure is a ratio of sums, and another reader's.
    """

    name = "ocr"
    unit = "share of the words (Chinese: characters) of the item's text that are read"
    source = "PP-OCRv6 small; its weights are in the wheel of rapidocr"
    item_keys = ("text",)

    def __init__(self) -> None:
        self.reader: RapidOCR | None = None

    def prepare(self, device: str) -> None:
        """On the CPU, whatever the device. Nothing is fetched."""
        self.reader = RapidOCR(params={"Global.log_level": "error"})

    def score(self, images: Images, items: Sequence[Item], reference: Images) -> list[float]:
        assert self.reader is not None, "prepare comes first"
        values = []
        for image, item in zip(images, items, strict=True):
            pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]  # (H, W, 3), blue first
            lines = self.reader(pixels).txts or ()
            found, asked = recall(text_of(item), " ".join(lines))
            values.append(found / max(1, asked))
        return values


def text_of(item: Item) -> str:
    """The text that the picture should show. Raises BadInput for none."""
    text = item["text"]
    parts = [text] if isinstance(text, str) else text
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise BadInput(
            f"text {text!r:.60} of an item", "a text, or a list of texts", "fix the suite"
        )
    return " ".join(parts)


OCR = OcrRecall()
