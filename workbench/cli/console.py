"""What the command line writes: a progress bar on stderr, facts and tables on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from ..records import Progress
from ..workspace.job_files import Clock

FIRST_LINE, NEXT_LINE = 5.0, 10.0  # seconds between lines where stderr is not a terminal
WIDTH = 200  # columns of a table where stdout is not a terminal


class Bar:
    """Progress on stderr: a bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.clock = Clock()
        self.next_line = time.monotonic() + FIRST_LINE
        self.rich: RichProgress | None = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self.rich = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.rich.add_task(title, total=None, text="")

    def __enter__(self) -> Self:
        if self.rich is not None:
            self.rich.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.rich is not None:
            self.rich.stop()

    def __call__(self, progress: Progress) -> None:
        """Show one state of the work."""
        self.clock.see(progress)
        if progress.result is not None:
            return
        text = describe(progress, self.clock.eta(progress))
        if self.rich is not None:
            total = progress.total or None
            self.rich.update(self.task, completed=progress.step, total=total, text=text)
        elif time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + NEXT_LINE
            print(f"{self.title} {text}", file=sys.stderr, flush=True)


def describe(progress: Progress, eta: float | None) -> str:
    """How far, how long still (seconds), the loss, and what it is doing."""
    parts = []
    if progress.total > 1:
        percent = 100 * progress.step // progress.total
        parts.append(f"{progress.step}/{progress.total} {percent} %")
    if eta is not None:
        parts.append(f"{duration(eta)} left")
    loss = progress.metrics.get("loss")
    if isinstance(loss, float):
        parts.append(f"loss {loss:.4g}")
    if progress.message:
        parts.append(progress.message)
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, second = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
    return f"{minutes}:{second:02d}"


def date(seconds: float | None) -> str:
    """Local date and time of a Unix time; - for None."""
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def cell(value: Any) -> str:
    """A value in a table or a fact."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return thousands(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return f"{len(value)} rows"
        return ", ".join(cell(item) for item in value)
    return str(value)


def thousands(value: int) -> str:
    """12 345 678; numbers of up to four digits stay together."""
    if abs(value) < 10_000:
        return str(value)
    return f"{value:,}".replace(",", " ")


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows as aligned columns, numbers to the right; all keys where no columns are named."""
    if not columns:
        columns = columns_of(rows)
    drawing = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        if all(isinstance(row.get(column), int | float | None) for row in rows):
            drawing.add_column(column.replace("_", " "), justify="right")
        else:
            drawing.add_column(column.replace("_", " "))
    for row in rows:
        drawing.add_row(*(Text(cell(row.get(column))) for column in columns))
    console = Console(width=None if sys.stdout.isatty() else WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(drawing)
    return capture.get().rstrip()


def columns_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """All keys of the rows, in the order in which they first appear."""
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
    return list(columns)


def pairs(facts: dict[str, Any]) -> str:
    """One `name  value` line a fact."""
    width = max((len(key) for key in facts), default=0)
    lines = [f"{key.replace('_', ' '):<{width}}  {cell(value)}" for key, value in facts.items()]
    return "\n".join(lines)


def page(
    result: dict[str, Any],
    tables: dict[str, list[str]] | None = None,
    hide: tuple[str, ...] = (),
) -> str:
    """A result for people: its plain facts, then the named lists as tables of those columns."""
    tables = tables or {}
    facts = {key: value for key, value in result.items() if key not in tables and key not in hide}
    parts = [pairs(facts)]
    for key, columns in tables.items():
        if result.get(key):
            parts.append(table(result[key], columns))
    return "\n\n".join(part for part in parts if part)
