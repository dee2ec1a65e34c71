"""What comes from the browser: cast, range-checked, or refused in one line."""

from __future__ import annotations

import re
from typing import Any

from ..records import BadInput


def safe_name(value: Any, what: str) -> str:
    """A file name from the browser: letters, digits, dot, dash and underscore, no path."""
    name = str(value or "").strip()
    if not re.fullmatch(r"[\w][\w.\-]{0,79}", name):
        raise BadInput(
            f"{what} name {name!r}",
            "letters, digits, dots, dashes, at most 80",
            "choose another name",
        )
    return name


def whole(value: Any, low: int, high: int, what: str) -> int:
    """A whole number in range."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != int(value)
        or not low <= value <= high
    ):
        raise BadInput(f"{what} {value!r}", f"a whole number from {low} to {high}", "change it")
    return int(value)


def positive(value: Any, what: str) -> float:
    number = at_least_zero(value, what)
    if not 0 < number < 1e4:
        raise BadInput(f"{what} {value!r}", "a positive number", "change it")
    return number


def at_least_zero(value: Any, what: str, whole: bool = False) -> Any:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < 1e9 or (whole and number != int(number)):
        raise BadInput(
            f"{what} {value!r}", f"a {'whole ' if whole else ''}number from 0 up", "change it"
        )
    return int(number) if whole else number
