"""Numbers and messages as people read them. What ends in HTML is escaped here."""

from __future__ import annotations

import time
from html import escape
from typing import Any

from ..charts import number


def count(value: float | None) -> str:
    """Parameters: 14.2 M, 20.4 B."""
    return scaled(value, (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)))


def size(value: float | None) -> str:
    """Bytes, in units of 1000: 28.4 MB."""
    return scaled(value, (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))


def scaled(value: float | None, units: tuple[tuple[str, float], ...]) -> str:
    if value is None:
        return "–"
    for unit, factor in units:
        if abs(value) >= factor:
            return (
                f"{value / factor:.3g} {unit}"
                if abs(value) < 1000 * factor
                else f"{value / factor:.0f} {unit}"
            )
    return f"{value:g}"


def duration(seconds: float | None) -> str:
    """42 s, 3 min 10 s, 2 h 5 min."""
    if seconds is None:
        return "–"
    whole = int(max(0, seconds))
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60} s"
        if whole < 3600
        else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


def clock(moment: float | None) -> str:
    """Local time; with the date unless it is today."""
    if moment is None:
        return "–"
    then, today = time.localtime(moment), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%d %b %H:%M", then)


def figure(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if number(value) else "–"


def percent(value: Any) -> str:
    return f"{100 * value:.0f} %" if number(value) else "–"


def short(name: str, limit: int = 48) -> str:
    """A long name with its middle cut out."""
    return name if len(name) <= limit else name[: limit // 2 - 1] + "…" + name[-limit // 2 :]


def card(title: str, value: str, note: str = "", hint: str = "") -> str:
    """One figure of the budget."""
    return (
        f'<div class="wb-card" '
        f'title="{escape(hint)}"><span>{escape(title)}</span><b>{escape(value)}</b>'
        f"<small>{escape(note)}</small></div>"
    )


def problem(message: str) -> str:
    """One clear line about what went wrong; empty for none."""
    return f'<div class="wb-problem" role="alert">{escape(message)}</div>' if message else ""


def notice(message: str) -> str:
    return f'<div class="wb-notice" role="status">{escape(message)}</div>' if message else ""


def command(*parts: Any) -> str:
    """A command line, quoted for a shell."""
    import shlex

    return " ".join(shlex.quote(str(part)) for part in ("workbench", *parts) if part is not None)
