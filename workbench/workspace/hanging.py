"""Jobs that hang: where a limit is set, one that has said nothing for so long is ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .job_files import Outcome, ProgressState, read_progress, write_outcome
from .processes import ProcessIdentity, kill

LIMIT = "WORKBENCH_MOST_SILENCE"


class SilenceClock:
    """Since when this process has seen no progress of jobs, by a clock that nobody sets.

    $WORKBENCH_MOST_SILENCE: minutes after which such a job has failed. Without it none has: loading
    and saving a large model takes its time.
    """

    def __init__(self) -> None:
        self.seen: dict[ProcessIdentity, tuple[ProgressState, float]] = {}

    def insist(self, folder: Path, process: ProcessIdentity | None) -> None:
        """End a job's process by force where its folder has heard nothing for longer than that."""
        minutes = float(os.environ.get(LIMIT) or 0)
        if minutes <= 0 or process is None or (folder / "result.json").exists():
            return
        progress = read_progress(folder)
        now = time.monotonic()
        last, since = self.seen.get(process, (None, now))
        if progress != last:
            self.seen[process] = (progress, now)
        elif now - since > 60 * minutes:
            error = f"ended: no progress for {minutes:g} minutes, the most that {LIMIT} allows"
            write_outcome(folder, Outcome(state="failed", error=error))
            kill(process)
