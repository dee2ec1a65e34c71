"""What the command line writes: one updating line of progress on stderr, tables on stdout."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import Any

from ..records import Progress
from ..workspace.job_files import Clock


class Bar:
    """Progress on stderr: one line that updates on a terminal; elsewhere a line every ten seconds,
    the first after five.
    """

    def __init__(self, title: str):
        self.title, self.live = title, sys.stderr.isatty()
        self.clock, self.due, self.dirty = Clock(), 0.0 if self.live else math.inf, False

    def __call__(self, progress: Progress) -> None:
        self.clock.see(progress)
        now = time.monotonic()
        self.due = min(self.due, now + 5)  # the first line of a quiet log
        if progress.result is not None or now < self.due:
            return
        self.due = now + (0.1 if self.live else 10)
        text = f"{self.title} {describe(progress, self.clock.eta(progress))}"
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:<{width}}", end="", file=sys.stderr, flush=True)
            self.dirty = True
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Clear the updating line."""
        if self.dirty:
            print(
                "\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r",
                end="",
                file=sys.stderr,
                flush=True,
            )


def describe(progress: Progress, eta: float | None) -> str:
    share = (
        f"{progress.step}/{progress.total} {100 * progress.step // progress.total} %"
        if progress.total > 1
        else ""
    )
    left = f"{clock(eta)} left" if eta is not None else ""
    loss = (
        f"loss {progress.metrics['loss']:.4g}"
        if isinstance(progress.metrics.get("loss"), float)
        else ""
    )
    return "  ".join(part for part in (share, left, loss, progress.message) if part)


def clock(seconds: float | None) -> str:
    """1:02:03, or 2:03."""
    if seconds is None:
        return ""
    minutes, second = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
        if minutes >= 60
        else f"{minutes}:{second:02d}"
    )


def date(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"


def text(value: Any) -> str:
    """A value in a table's cell."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ") if abs(value) >= 10000 else str(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)} rows"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    return ", ".join(map(text, value)) if isinstance(value, list) else str(value)


def table(rows: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    """Rows as aligned columns; numbers to the right."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    cells = [[text(row.get(c)) for c in columns] for row in rows]
    widths = [
        max(len(c), *(len(line[i]) for line in cells)) if cells else len(c)
        for i, c in enumerate(columns)
    ]
    right = [
        bool(rows) and all(isinstance(row.get(c), int | float | None) for row in rows)
        for c in columns
    ]

    def line(values: list[str]) -> str:
        return "  ".join(
            v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(columns), *map(line, cells)])


def pairs(facts: dict[str, Any]) -> str:
    """`name  value` lines."""
    width = max(map(len, facts), default=0)
    return "\n".join(
        f"{key.replace('_', ' '):<{width}}  {text(value)}" for key, value in facts.items()
    )


def page(
    result: dict[str, Any], tables: dict[str, list[str]] | None = None, hide: tuple[str, ...] = ()
) -> str:
    """A result for people: its plain facts, then the named lists as tables with the given columns."""
    tables = tables or {}
    facts = {key: value for key, value in result.items() if key not in tables and key not in hide}
    parts = [pairs(facts)] + [
        table(result[key], columns) for key, columns in tables.items() if result.get(key)
    ]
    return "\n\n".join(part for part in parts if part)
