"""Reading text in pictures. The reader is run where rapidocr is installed."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.refusals import refused
from workbench.comparison.text_recall import recall


def test_words_are_counted_in_any_order_and_no_more_often_than_they_were_read():
    assert recall("Open all day, ALL night!", "night open all") == (3, 5)
    assert recall("a a b", "a") == (1, 3)
    assert recall("", "anything") == (0, 0)


def test_a_chinese_text_is_counted_by_characters():
    assert recall("每日 烘焙", "烘日") == (2, 4)
    assert recall("始于1998", "1989") == (4, 6)


def picture(text: str) -> Image.Image:
    image = Image.new("RGB", (480, 120), "white")
    ImageDraw.Draw(image).text((20, 30), text, fill="black", font=ImageFont.load_default(48))
    return image


def test_what_is_written_in_a_picture_is_read():
    pytest.importorskip("rapidocr")
    from workbench.comparison.scorers.ocr import OCR, text_of

    OCR.prepare("cpu")
    images = [picture("OPEN ALL DAY"), picture("OPEN"), picture("")]
    items = [{"prompt": "a sign", "text": ["Open all", "day"]}] * 3
    assert OCR.score(images, items, []) == pytest.approx([1.0, 1 / 3, 0.0])
    with refused(found="text 3"):
        text_of({"text": 3})
