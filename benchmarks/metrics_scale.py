"""Time and memory to show the curve of a long run: `python benchmarks/metrics_scale.py`.

200,000 rows of 60 columns, as a run of days writes them, against 2,000 rows: the first look of a
page that opens, and the next one, ten rows later. Prints seconds (the best of three), MiB that
Python took, KiB that travel to the browser, and the ratio of the two first looks.
"""

from __future__ import annotations

import json
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from workbench import charts
from workbench.ui.curve_stream import MOST_LINES
from workbench.workspace.job_files import Cursor, metrics_file, read_metrics

COLUMNS = 60
LONG = 200_000
SHORT = 2_000
NEW = 10


def write(folder: Path, first: int, count: int) -> None:
    """Rows as a distillation writes them: a loss, and those of its blocks."""
    others = ", ".join(f'"loss/blocks.{number}": {number / 7}' for number in range(COLUMNS - 1))
    with open(metrics_file(folder, 1), "a") as file:
        for step in range(first, first + count):
            file.write(f'{{"step": {step}, "loss": {1 / step}, {others}}}\n')


def look(folder: Path, after: Cursor | None = None) -> tuple[list[dict[str, Any]], Cursor]:
    """What a page does: the points of the curve behind its cursor."""
    rows, cursor = read_metrics(folder, after, MOST_LINES)
    return charts.curve_rows(rows), cursor


def seconds_of_look(folder: Path, after: Cursor | None = None) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        look(folder, after)
        times.append(time.perf_counter() - start)
    return min(times)


def measure(folder: Path, count: int) -> dict[str, float]:
    write(folder, 1, count)
    seconds = seconds_of_look(folder)
    tracemalloc.start()
    points, cursor = look(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    write(folder, count + 1, NEW)
    new, _ = look(folder, cursor)
    return {
        "rows": count,
        "file_mib": metrics_file(folder, 1).stat().st_size / 2**20,
        "seconds": seconds,
        "peak_mib": peak / 2**20,
        "points": len(points),
        "kib": len(json.dumps(points)) / 2**10,
        "next_seconds": seconds_of_look(folder, cursor),
        "next_points": len(new),
    }


def main() -> None:
    figures = {}
    for name, count in (("short", SHORT), ("long", LONG)):
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(Path(folder), count)
    ratio = figures["long"]["seconds"] / figures["short"]["seconds"]
    print(json.dumps({**figures, "ratio": ratio}))


if __name__ == "__main__":
    main()
