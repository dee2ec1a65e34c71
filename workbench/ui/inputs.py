"""Values from the browser: converted and range-checked, or refused in one line."""

from __future__ import annotations

import re

from ..records import BadInput


def safe_name(value: object, what: str) -> str:
    """A file name from the browser: letters, digits, dot, dash and underscore, no path."""
    name = str(value or "").strip()
    if not re.fullmatch(r"[\w][\w.\-]{0,79}", name):
        raise BadInput(
            f"{what} name {name!r}",
            "letters, digits, dots, dashes, at most 80",
            "choose another name",
        )
    return name


def file_name(text: str) -> str:
    """Any text as a file name: what does not fit becomes a dash."""
    return re.sub(r"[^\w.\-]", "-", text)[:60]


def whole(value: object, low: int, high: int, what: str) -> int:
    """A whole number from `low` to `high`."""
    number = between(value, low, high, what)
    if number != int(number):
        raise BadInput(f"{what} {value!r}", f"a whole number from {low} to {high}", "change it")
    return int(number)


def between(value: object, low: float, high: float, what: str) -> float:
    """A number from `low` to `high`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    raise BadInput(f"{what} {value!r}", f"a number from {low} to {high}", "change it")
