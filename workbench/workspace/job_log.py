"""A job's log: its last lines as a person reads them, and its rotation.

log.txt     what the process prints; a job that prints for days goes on in a new file
log-1.txt   what it printed before that
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LOG_BYTES = 16 * 2**20  # of one file, unless $WORKBENCH_LOG_BYTES says otherwise
NEAR = 256 * 1024  # bytes from the end that are read first
LONGEST_LINE = 2000  # characters
# what terminals act on (colours, moves of the cursor), and other characters that are no text
NO_TEXT = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0b-\x1f\x7f]")


def log_bytes() -> int:
    """Bytes from which on a log is rotated."""
    return int(os.environ.get("WORKBENCH_LOG_BYTES", LOG_BYTES))


def older(path: Path) -> Path:
    """Where a log's earlier lines are: log-1.txt for log.txt."""
    return path.with_name(f"{path.stem}-1{path.suffix}")


# --- written --------------------------------------------------------------------------------------


def add_lines(folder: Path, lines: Iterable[str]) -> None:
    """Add lines to a job's log, each with the time. Written as far as the disk has room.

    They go into the file itself: a job that runs in the foreground prints on its terminal, but has
    a log, too.
    """
    now = time.strftime("%H:%M:%S")
    text = "".join(f"{now} {line}\n" for line in lines)
    with (
        suppress(OSError),
        open(folder / "log.txt", "a", encoding="utf-8", errors="replace") as log,
    ):
        log.write(text)


def rotate(path: Path) -> bool:
    """Go on in a new log where this process prints into that file and it has become long; the file
    before it goes. Returns whether it was rotated.

    The process's own descriptors are moved to the new file, so that no line is lost; a process that
    it started prints on into the old one.
    """
    with suppress(OSError):
        status = path.stat()
        if status.st_size < log_bytes() or not os.path.samestat(status, os.fstat(1)):
            return False
        os.replace(path, older(path))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        for number in (1, 2):
            os.dup2(descriptor, number)
        os.close(descriptor)
        return True
    return False


# --- read -----------------------------------------------------------------------------------------


def tail(path: Path, lines: int = 50) -> list[str]:
    """The last lines of a log as a terminal would show them: of a progress bar its last state, and
    of a very long line its beginning.

    Reads some kilobytes; more only where those hold too few lines, as those of progress bars do.
    """
    shown: list[str] = []
    for most in (NEAR, 2 * log_bytes()):
        data = last_bytes(path, most)
        if len(data) < most:
            data = last_bytes(older(path), most - len(data)) + data
        shown = readable(data)
        if len(shown) >= lines or len(data) < most:
            break
    return shown[-lines:]


def last_bytes(path: Path, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read()
    except OSError:
        return b""


def readable(data: bytes) -> list[str]:
    """The lines of a log's bytes."""
    lines = data.decode("utf-8", "replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [shown_line(line) for line in lines]


def shown_line(line: str) -> str:
    """What a terminal shows of a line in the end."""
    last_state = line.rstrip("\r").rpartition("\r")[2]
    text = NO_TEXT.sub("", last_state[: 2 * LONGEST_LINE])
    if len(text) > LONGEST_LINE:
        return text[:LONGEST_LINE] + " .."
    return text
