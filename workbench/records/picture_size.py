"""The size of pictures, as people write it: 1024 for a square, 1344x768 for width x height."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

SMALLEST, LARGEST = 8, 65536  # pixels a side
TEXT = re.compile(r"(\d{1,6})(?:\s*[x×]\s*(\d{1,6}))?")


def parse_size(value: Any) -> Any:
    """ "1024" -> 1024, "1344x768" -> "1344x768", "512x512" -> 512. Raises ValueError for others."""
    if value is None:
        return None
    match = None
    if isinstance(value, int | str) and not isinstance(value, bool):
        match = TEXT.fullmatch(str(value).strip().lower())
    if match is None:
        raise ValueError("pixels a side, like 1024, or width x height, like 1344x768")
    width, height = int(match[1]), int(match[2] or match[1])
    if not (min(width, height) >= SMALLEST and max(width, height) <= LARGEST):
        raise ValueError(f"{SMALLEST} to {LARGEST} pixels a side")
    return width if width == height else f"{width}x{height}"


# A square's side in pixels, or "WIDTHxHEIGHT".
Size = Annotated[int | str, BeforeValidator(parse_size)]


def sides(size: Size) -> tuple[int, int]:
    """(height, width) in pixels, the order of pictures in tensors."""
    if isinstance(size, int):
        return size, size
    width, _, height = size.partition("x")
    return int(height), int(width)


def size_of(height: int, width: int) -> Size:
    """The text or number for a height and a width in pixels."""
    return width if width == height else f"{width}x{height}"


def mean_side(size: Size) -> float:
    """The side of the square with as many pixels."""
    height, width = sides(size)
    return math.sqrt(height * width)
