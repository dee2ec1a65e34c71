"""Numbers and messages as people read them. Plain text that becomes HTML is escaped here."""

from __future__ import annotations

import time
from html import escape

from ..charts import number


def count(value: float | None) -> str:
    """Parameters: 14.2 M, 20.4 B."""
    return scaled(value, (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)))


def size(value: float | None) -> str:
    """Bytes, in units of 1000: 28.4 MB."""
    return scaled(value, (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))


def scaled(value: float | None, units: tuple[tuple[str, float], ...]) -> str:
    """A value in the largest unit it reaches, with three digits."""
    if value is None:
        return "–"
    for unit, factor in units:
        if abs(value) >= 1000 * factor:  # of the largest unit: no exponent
            return f"{value / factor:.0f} {unit}"
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:g}"


def duration(seconds: float | None) -> str:
    """42 s, 3 min 10 s, 2 h 5 min."""
    if seconds is None:
        return "–"
    minutes, second = divmod(int(max(0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min"
    if minutes:
        return f"{minutes} min {second} s"
    return f"{second} s"


def clock(moment: float | None) -> str:
    """Local time; with the date unless it is today."""
    if moment is None:
        return "–"
    then = time.localtime(moment)
    is_today = then[:3] == time.localtime()[:3]
    if is_today:
        return time.strftime("%H:%M:%S", then)
    return time.strftime("%d %b %H:%M", then)


def figure(value: object, digits: int = 3) -> str:
    """A number in so many digits, 1690 and not 1.69e+03; a dash for anything else."""
    if not isinstance(value, int | float) or not number(value):
        return "–"
    if 10**digits <= abs(value) < 10**9:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds: 84.2 ms, 1.69 s."""
    if value is None or not number(value):
        return "–"
    if abs(value) < 999.5:
        return f"{figure(value)} ms"
    return f"{figure(value / 1000)} s"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    if value is None or not number(value):
        return "–"
    return f"{100 * value:.0f} %"


def short(name: str, limit: int = 48) -> str:
    """A long name with its middle cut out."""
    if len(name) <= limit:
        return name
    return name[: limit // 2 - 1] + "…" + name[-limit // 2 :]


def plural(number: int, noun: str) -> str:
    """1 block, 2 blocks."""
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun}s"


def card(title: str, value: str, note: str = "", hint: str = "") -> str:
    """One figure of the budget."""
    return (
        f'<div class="wb-card" '
        f'title="{escape(hint)}"><span>{escape(title)}</span><b>{escape(value)}</b>'
        f"<small>{escape(note)}</small></div>"
    )


def problem(message: str) -> str:
    """One clear line about what went wrong; empty for none."""
    return line(message, 'class="wb-problem wb-one" role="alert" tabindex="0"')


def notice(message: str) -> str:
    """One line about what happens or is missing; empty for none."""
    return line(message, 'class="wb-notice wb-one" role="status" tabindex="0"')


def line(message: str, attributes: str) -> str:
    if not message:
        return ""
    return f"<div {attributes}>{escape(message)}</div>"


def about(html: str) -> str:
    """A line of small print; the caller has escaped it."""
    return f"<div class='wb-about'>{html}</div>"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table; the caller has escaped the cells, not the head."""
    titles = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        "<div class='wb-scroll' tabindex='0'><table class='wb-table'>"
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(text: str, style: str = "") -> str:
    """A cell of a table, escaped."""
    return f"<td class='{style}'>{escape(text)}</td>"
