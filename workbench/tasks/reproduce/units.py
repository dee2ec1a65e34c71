"""A list of work that several processes share, on one machine or on many with a common folder.

A unit is done when its file exists. Each process takes the next unit that nobody holds; a stopped
run goes on with the unit it was in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...records import Progress
from ...workspace.processes import try_lock

WAIT = 2.0  # seconds between looks at what others hold
Work = Iterator[Progress]


@dataclass(frozen=True)
class Unit:
    """A piece of the work: done when `file` exists, possible when all of `needs` exist.

    weight: its share of the progress bar. work: yields the progress of its verbs; where it ends
    without writing the file, it was stopped.
    """

    label: str
    file: Path
    needs: tuple[Path, ...]
    weight: int
    work: Callable[[], Work]

    @property
    def done(self) -> bool:
        return self.file.exists()

    @property
    def ready(self) -> bool:
        return all(file.exists() for file in self.needs)

    def take(self) -> int | None:
        """A lock, if nobody else holds the unit and it is still to be done. Close it to let go."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.file.parent / f".{self.file.name}.lock")
        if lock is not None and self.done:  # another process has just finished it
            os.close(lock)
            return None
        return lock


@dataclass
class Queue:
    """The units as one progress. `list_units` is asked again after each, since the results of some
    decide what others there are. `stopped`: not all of them are done.
    """

    list_units: Callable[[], list[Unit]]
    total: int
    stop: Callable[[], bool]
    stopped: bool = False

    def run(self) -> Work:
        """Do what is left, or wait for the processes that do it."""
        while left := [unit for unit in self.list_units() if not unit.done]:
            unit, lock = take_one(left)
            if unit is None or lock is None:
                yield self.progress(f"others are at {', '.join(unit.label for unit in left[:3])}")
                time.sleep(WAIT)
                self.stopped = self.stop()
            else:
                try:
                    yield from self.work_on(unit)
                finally:
                    os.close(lock)
                self.stopped = not unit.done
            if self.stopped:
                return
            if unit is not None:
                yield self.progress(f"{unit.label}: made")

    def work_on(self, unit: Unit) -> Work:
        """A unit's progress, under its label."""
        step = self.step()
        for progress in unit.work():
            message = f"{unit.label}: {progress.message} {progress.step}/{progress.total}"
            yield Progress(step=step, total=self.total, message=message)

    def step(self) -> int:
        done = sum(unit.weight for unit in self.list_units() if unit.done)
        return min(done, self.total)

    def progress(self, message: str) -> Progress:
        return Progress(step=self.step(), total=self.total, message=message)


def take_one(units: Sequence[Unit]) -> tuple[Unit, int] | tuple[None, None]:
    """The first unit that can be done and that nobody holds, with its lock."""
    for unit in units:
        if unit.ready:
            lock = unit.take()
            if lock is not None:
                return unit, lock
    return None, None
