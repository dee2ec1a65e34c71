"""What a verb works with beside its spec, and how it is asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..records import Progress
from ..workspace.job_log import add_lines
from ..workspace.store import Store


class Stopped(Exception):
    """The work was asked to stop; its checkpoint, if it has one, is written. again: by a signal
    alone, as from a machine that is taken away, so that the same command is to be run again.
    """

    again = False


@dataclass(frozen=True)
class Context:
    """What a verb works with, beside its spec.

    stop: whether to stop at the next checkpoint. resume: the job ran before and continues from its
    checkpoint. folder: the job's own folder, None in the foreground. requested: whether someone
    asked for "save" or "sample" since the last call. pace_file: shared by runs whose minutes of
    training are to be worth the same, whatever else the machine does meanwhile.
    """

    store: Store
    device: str = "cpu"
    stop: Callable[[], bool] = field(default=lambda: False)
    resume: bool = False
    folder: Path | None = None
    requested: Callable[[str], bool] = field(default=lambda name: False)
    pace_file: Path | None = None

    @property
    def prompt_cache(self) -> Path:
        """Where the workspace keeps what text encoders gave."""
        return self.store.workspace / "cache" / "prompts"

    def log(self, lines: Iterable[str]) -> None:
        """Add lines to the job's log; nothing where there is no job."""
        if self.folder is not None:
            add_lines(self.folder, lines)


def until(stop: Callable[[], bool], work: Iterator[Progress]) -> Iterator[Progress]:
    """Pass progress on until asked to stop; for verbs that keep what they have at every step."""
    for progress in work:
        yield progress
        if progress.result is None and stop():
            return
