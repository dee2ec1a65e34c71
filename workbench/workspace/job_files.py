"""The files of a job's folder: their names, how its process writes them, how others read them.

job.json        the job's row of the database, from which the database can be made again
spec.yaml       what the verb was given
inputs/         copies of small input files; large-inputs.json lists those left in their place
log.txt         what the process prints (`job_log`); log-1.txt: what it printed long ago
progress.json   how far it is
metrics.jsonl   a row a step, with its time; a resumed job goes on in metrics-2.jsonl, metrics-3.jsonl ..
samples/, checkpoints/
stop            there while the job is to stop; says "pause" or "cancel"
result.json     what the verb returned: with it the job is done, whatever comes after
outcome.json    how it ended, written by the process as its last act
exit.json       the exit status of its process, written by the worker that saw it
.reserve        room for the outcome of a job that fills the disk
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pydantic import ValidationError

from ..records import BadInput, Progress, jsonfile, write_atomic
from ..records.record import Record

RESERVE = ".reserve"
RESERVE_BYTES = 256 * 1024
CHUNK = 2**20  # bytes of a file from which the number of its rows is estimated
# "step", "time" (seconds since the epoch), and whatever numbers the verb reports
MetricsRow = dict[str, Any]


class ProgressState(Record):
    """progress.json. eta: seconds left at `time`, None where it is not known."""

    step: int = 0
    total: int = 0
    message: str = ""
    eta: float | None = None
    time: float = 0.0

    def left(self, since: float) -> float | None:
        """Seconds left now of an attempt that began at `since`; None where that is not known, or
        where the estimate has run out.
        """
        if self.eta is None or self.time < since:
            return None
        seconds = self.eta - max(0.0, time.time() - self.time)
        return seconds if seconds > 0 else None


class Outcome(Record):
    """outcome.json: how a job ended, in its own words.

    state: "done", "failed", or "stopped" (with a checkpoint, where the verb makes one). expected:
    the error says all there is to say, so that the log need not be shown with it.
    """

    state: str
    error: str = ""
    expected: bool = False


class Cursor(NamedTuple):
    """How far someone has read a job's metrics: up to a byte of one attempt's file."""

    attempt: int = 1
    byte: int = 0

    @classmethod
    def parse(cls, value: object) -> Cursor:
        """A cursor that came back from a browser; the start where it is not one."""
        if isinstance(value, list | tuple) and len(value) == 2:
            attempt, byte = value
            if type(attempt) is int and type(byte) is int and min(attempt, byte) >= 0:
                return cls(attempt, byte)
        return cls()


# --- written by the job's process -----------------------------------------------------------------


class ProgressWriter:
    """Writes each metrics row at once, and progress.json at most every `every` seconds.

    Neither is synced to the disk: the caller is a training loop, and a machine that loses power
    loses a few rows at most.
    """

    def __init__(self, folder: Path, attempt: int = 1, every: float = 0.25):
        self.folder = folder
        self.every = every
        self.metrics_path = metrics_file(folder, attempt)
        self.metrics: TextIO | None = None
        self.clock = Clock()
        self.last: Progress | None = None
        self.written = -math.inf

    def __call__(self, progress: Progress) -> None:
        self.clock.see(progress)
        self.last = progress
        if progress.metrics:
            self.write_metrics(progress)
        if time.monotonic() - self.written >= self.every:
            self.write_progress()

    def write_metrics(self, progress: Progress) -> None:
        if self.metrics is None:
            self.metrics = self.metrics_path.open("a", encoding="utf-8", buffering=1)
        row = {"step": progress.step, "time": round(time.time(), 2), **progress.metrics}
        json_row = {name: finite(value) for name, value in row.items()}
        self.metrics.write(json.dumps(json_row) + "\n")

    def write_progress(self) -> None:
        if self.last is None:
            return
        state = ProgressState(
            step=self.last.step,
            total=self.last.total,
            message=self.last.message,
            eta=self.clock.eta(self.last),
            time=time.time(),
        )
        draft = self.folder / ".progress.json.new"
        draft.write_text(state.model_dump_json(), encoding="utf-8")
        os.replace(draft, self.folder / "progress.json")
        self.written = time.monotonic()

    def close(self) -> None:
        """Write what is not written yet, as far as the disk has room."""
        with suppress(OSError):
            self.write_progress()
        if self.metrics is not None:
            with suppress(OSError):
                self.metrics.close()


class Clock:
    """Time left, from the pace of this attempt's steps alone.

    Counted from where the step last stood still: a resumed run begins in the middle, loading and
    filling caches count other things (their total is another), and a fit before the first step does
    not count.
    """

    def __init__(self) -> None:
        self.start_time = 0.0
        self.start_step: int | None = None
        self.total = 0

    def see(self, progress: Progress) -> None:
        is_new = self.start_step is None or progress.total != self.total
        if is_new or progress.step <= (self.start_step or 0):
            self.start_time = time.monotonic()
            self.start_step = progress.step
            self.total = progress.total

    def eta(self, progress: Progress) -> float | None:
        """Seconds, or None before the second step and after the last."""
        if self.start_step is None or progress.step <= self.start_step:
            return None
        if progress.step >= progress.total:
            return None
        per_step = (time.monotonic() - self.start_time) / (progress.step - self.start_step)
        return round(per_step * (progress.total - progress.step), 1)


def finite(value: Any) -> Any:
    """The value, or None for the numbers that JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_result(folder: Path, result: Any) -> None:
    write_atomic(folder / "result.json", json.dumps(result, indent=1) + "\n")


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """How the job ended. On a full disk it takes the room that was kept for it."""
    text = outcome.model_dump_json() + "\n"
    try:
        write_atomic(folder / "outcome.json", text)
    except OSError:
        free_reserve(folder)
        with suppress(OSError):
            write_atomic(folder / "outcome.json", text)
    free_reserve(folder)


def keep_reserve(folder: Path) -> None:
    """Take room on the disk for `write_outcome`, and for the stop of a job on a full disk."""
    with suppress(OSError):
        (folder / RESERVE).write_bytes(b"\0" * RESERVE_BYTES)


def free_reserve(folder: Path) -> None:
    with suppress(OSError):
        (folder / RESERVE).unlink()


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a disk has no space left.

    Libraries wrap it: safetensors and torch raise their own errors with the system's words.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if os.strerror(errno.ENOSPC) in str(seen) or "file write failed" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def request_stop(folder: Path, how: str) -> None:
    """Write the file `stop`, which the job looks for; on a full disk, too."""
    try:
        write_atomic(folder / "stop", how)
    except OSError:
        free_reserve(folder)
        with suppress(OSError):
            (folder / "stop").write_text(how)


def write_exit_code(folder: Path, code: int) -> None:
    """The exit status of the job's process, negative for a signal."""
    with suppress(OSError):
        write_atomic(folder / "exit.json", f"{code}\n")


def clear_end(folder: Path) -> None:
    """Remove what an earlier attempt said about its end: a job in the queue has no such files."""
    for name in ("outcome.json", "result.json", "exit.json", "stop"):
        (folder / name).unlink(missing_ok=True)


# --- read by everybody ----------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """A small JSON file, or None where it is missing, damaged or only half there."""
    try:
        return jsonfile.read(path, "file of a job")
    except BadInput:
        return None


def read_progress(folder: Path) -> ProgressState:
    """How far a job is; nothing is known where the file is damaged."""
    try:
        return ProgressState.model_validate(read_json(folder / "progress.json") or {})
    except ValidationError:
        return ProgressState()


def read_outcome(folder: Path) -> Outcome | None:
    try:
        return Outcome.model_validate(read_json(folder / "outcome.json"))
    except ValidationError:
        return None


def read_exit_code(folder: Path) -> int | None:
    code = read_json(folder / "exit.json")
    return code if type(code) is int else None


def read_stop(folder: Path) -> str | None:
    """ "pause" or "cancel" where the job is to stop."""
    try:
        how = (folder / "stop").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    if how in ("pause", "cancel"):
        return how
    return "cancel"  # the disk was too full for the word


def metrics_file(folder: Path, attempt: int) -> Path:
    """The metrics file of an attempt; attempts count from 1."""
    if attempt <= 1:
        return folder / "metrics.jsonl"
    return folder / f"metrics-{attempt}.jsonl"


def attempts_with_metrics(folder: Path) -> list[int]:
    attempts = []
    for path in folder.glob("metrics*.jsonl"):
        number = path.stem.removeprefix("metrics").removeprefix("-")
        if not number:
            attempts.append(1)
        elif number.isdecimal():
            attempts.append(int(number))
    return sorted(attempts)


def read_metrics(
    folder: Path, after: Cursor | None = None, most: int | None = None
) -> tuple[list[MetricsRow], Cursor]:
    """The metrics rows behind a cursor in order of their steps, and the next cursor.

    A resumed attempt repeats the steps since its checkpoint, so its rows replace those of earlier
    attempts from its first step on. A reader who keeps rows does the same: drop those from the step
    of the first new row on, then append. most: of a longer history about so many rows, evenly, with
    the first and the last; the others are not even read.
    """
    after = after or Cursor()
    starts: dict[int, int] = {}
    for attempt in attempts_with_metrics(folder):
        if attempt >= after.attempt:
            starts[attempt] = after.byte if attempt == after.attempt else 0
    gap = gap_between_rows(folder, starts, most)
    cursor = after
    rows: list[MetricsRow] = []
    for attempt, start in starts.items():
        fresh, end = read_rows(metrics_file(folder, attempt), start, gap)
        if fresh:
            rows = [row for row in rows if row["step"] < fresh[0]["step"]] + fresh
        cursor = Cursor(attempt, end)
    return rows, cursor


def gap_between_rows(folder: Path, starts: dict[int, int], most: int | None) -> int:
    """Bytes from one row that is read to the next, so that about `most` are; 0: all are read.

    starts: attempt -> byte behind which its file is read. The number of rows is estimated from the
    beginning of each file.
    """
    if most is None:
        return 0
    total = 0
    rows = 0.0
    for attempt, start in starts.items():
        with suppress(OSError), open(metrics_file(folder, attempt), "rb") as file:
            size = os.fstat(file.fileno()).st_size - start
            file.seek(start)
            beginning = file.read(CHUNK)
            if beginning:
                total += size
                rows += beginning.count(b"\n") * size / len(beginning)
    return total // most if rows > most else 0


def read_rows(path: Path, start: int, gap: int = 0) -> tuple[list[MetricsRow], int]:
    """The whole lines behind a byte that are rows, `gap` bytes from one to the next, and the last
    one; and the byte behind the last whole line.
    """
    rows: list[MetricsRow] = []
    end = start
    due = start  # the byte from which on a line is read
    last = b""
    with suppress(OSError), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(start)
        while True:
            if end < due < size - gap:  # the lines near the end are read for the last one of them
                file.seek(due - 1)
                if file.readline().endswith(b"\n"):
                    end = file.tell()
                file.seek(end)
            begin = end
            line = file.readline()
            if not line.endswith(b"\n"):
                break
            end += len(line)
            last = line
            if begin >= due or not rows:
                rows += row_of(line)
                last = b""
                due = begin + gap
    return rows + row_of(last), end


def row_of(line: bytes) -> list[MetricsRow]:
    """The row that a line holds; none where the machine went down while it was written."""
    try:
        row = jsonfile.parse(line)
    except jsonfile.JSONError:
        return []
    if isinstance(row, dict) and isinstance(row.get("step"), int):
        return [row]
    return []
