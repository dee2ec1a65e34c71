"""What a running job writes for those who watch: progress.json and metrics.jsonl; and how they read
it.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from ..records import Progress, write_atomic

CURSOR_BITS = 42  # a cursor is (which file, byte): 10 + 42 bits, exact in JavaScript too


class Recorder:
    """Writes progress at most every `every` seconds, and each metrics row at once.

    The first row of a resumed run cuts the file back to the step before it, so that a curve has no
    hole and no double.
    """

    def __init__(self, folder: Path, every: float = 0.25):
        self.folder, self.every = folder, every
        self.cut = False
        self.written = -math.inf
        self.last: Progress | None = None
        self.clock = Clock()

    def __call__(self, progress: Progress) -> None:
        self.clock.see(progress)
        self.last = progress
        if progress.metrics:
            row = {"step": progress.step, **progress.metrics}
            if not self.cut:
                cut_back(self.folder / "metrics.jsonl", row["step"])
                self.cut = True
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({k: finite(v) for k, v in row.items()}) + "\n")
        if time.monotonic() - self.written >= self.every:
            self.write()

    def write(self) -> None:
        """Write progress.json now."""
        if self.last is not None:
            data = {
                "step": self.last.step,
                "total": self.last.total,
                "message": self.last.message,
                "eta": self.clock.eta(self.last),
                "time": time.time(),
            }
            write_atomic(self.folder / "progress.json", json.dumps(data))
            self.written = time.monotonic()

    def close(self) -> None:
        """Write what is not written yet."""
        self.write()


class Clock:
    """Time left, from the steps of this run alone: a resumed run begins in the middle."""

    def __init__(self) -> None:
        self.start: tuple[float, int] | None = None

    def see(self, progress: Progress) -> None:
        if self.start is None or progress.step < self.start[1]:
            self.start = (time.monotonic(), progress.step)

    def eta(self, progress: Progress) -> float | None:
        """Seconds, or None before the second step."""
        if self.start is None or progress.step <= self.start[1]:
            return None
        rate = (time.monotonic() - self.start[0]) / (progress.step - self.start[1])
        return round(rate * max(0, progress.total - progress.step), 1)


def finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cut_back(path: Path, step: int) -> None:
    """Drop rows from `step` on, and a torn last line. The cut file is a new file, by which readers
    notice.
    """
    if not path.exists():
        return
    rows = parse(path.read_bytes())
    kept = [row for row in rows if row["step"] < step]
    if len(kept) == len(rows) and path.read_bytes().endswith(b"\n"):
        return
    old = mark(path)
    text = "".join(json.dumps(row) + "\n" for row in kept)
    write_atomic(path, text)
    while mark(path) == old:  # two files may share the low bits of their numbers
        spare = path.with_name(".metrics.spare")
        os.link(path, spare)
        write_atomic(path, text)
        spare.unlink()


def mark(path: Path) -> int:
    return path.stat().st_ino & 0x3FF


def parse(data: bytes) -> list[dict[str, Any]]:
    """Whole lines that are rows; a torn line is skipped."""
    rows = []
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def read_metrics(path: Path, after: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Rows behind the cursor, and the next cursor. A cut-back file is read again from its start."""
    try:
        with open(path, "rb") as file:
            number = os.fstat(file.fileno()).st_ino & 0x3FF
            start = after & ((1 << CURSOR_BITS) - 1)
            if after >> CURSOR_BITS != number or start > os.fstat(file.fileno()).st_size:
                start = 0
            file.seek(start)
            data = file.read()
    except OSError:
        return [], after
    whole = data[: data.rfind(b"\n") + 1]
    return parse(whole), (number << CURSOR_BITS) | (start + len(whole))
