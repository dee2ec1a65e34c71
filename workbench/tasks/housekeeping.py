"""What looks after a job while it works: room on the disks that it writes to, and the length of its
log.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..records import BadInput
from ..workspace.job_log import rotate

EVERY = 0.5  # seconds between looks
FLOOR_GB = 1.0  # what stays free, unless $WORKBENCH_DISK_FLOOR says otherwise


class Disks:
    """The disks that a job writes to, and how much of each has to stay free: $WORKBENCH_DISK_FLOOR
    GB, or half of what was free when the job began where that is less.

    fault: why the job has to stop; None while there is room.
    """

    def __init__(self, paths: Iterable[Path | str]) -> None:
        floor = float(os.environ.get("WORKBENCH_DISK_FLOOR", FLOOR_GB)) * 1e9
        self.floors: dict[Path, float] = {}
        for folder in {existing(Path(path)) for path in paths}:
            self.floors[folder] = min(floor, free_bytes(folder) / 2)
        self.fault: BadInput | None = None

    def look(self) -> None:
        for folder, floor in self.floors.items():
            free = free_bytes(folder)
            if free < floor and self.fault is None:
                self.fault = BadInput(
                    f"the disk of {folder} has {in_words(free)} left",
                    f"{in_words(floor)} that stay free (WORKBENCH_DISK_FLOOR, in GB)",
                    "free some and resume the job: it has stopped with its last checkpoint",
                )


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes(folder: Path) -> float:
    """Bytes that this user may still write; infinite where the disk does not say."""
    with suppress(OSError):
        return float(shutil.disk_usage(folder).free)
    return float("inf")


def in_words(size: float) -> str:
    """ "1.2 GB", "340 MB"."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB"


@contextmanager
def looked_after(log: Path, paths: Iterable[Path | str]) -> Iterator[Disks]:
    """Look at the disks of those paths, and rotate the log where it is this process's own, while
    the block runs.
    """
    disks = Disks(paths)
    end = threading.Event()

    def look() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # for the main thread
        while not end.wait(EVERY):
            disks.look()
            rotate(log)

    thread = threading.Thread(target=look, name="housekeeping", daemon=True)
    thread.start()
    try:
        yield disks
    finally:
        end.set()
        thread.join()
