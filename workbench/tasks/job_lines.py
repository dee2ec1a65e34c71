"""What a job's log says besides what its verb prints: what it was given, how far it is at intervals
with its losses, what it wrote, and how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records import Progress, yamlfile
from ..specs import VerbSpec
from ..workspace.job_log import add_lines

LINES = 50  # about so many of each phase
SECONDS = 60.0  # after which there is a line in any case
NUMBERS = 8  # of a line; the others are in metrics.jsonl
SMALL_PRINT = ("lr", "gradient_norm", "samples_per_second", "stage_step")  # after the losses


class JobLines:
    """Adds lines to the log of a job in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self.said: Progress | None = None  # the state that has a line
        self.said_at = 0.0

    def given(self, spec: VerbSpec, device: str) -> None:
        """What the job was given, as in its spec.yaml."""
        add_lines(self.folder, [f"{spec.verb} on {device}, given:", *spec_lines(spec)])

    def see(self, progress: Progress) -> None:
        """A line where one is due."""
        if self.is_due(progress):
            self.said = progress
            self.said_at = time.monotonic()
            add_lines(self.folder, [progress_line(progress)])

    def is_due(self, progress: Progress) -> bool:
        """At a new phase, about LINES times a phase, and where nothing was said for a minute."""
        before = self.said
        if progress.result is not None:
            return False
        if before is None or progress.total != before.total or progress.step < before.step:
            return True
        if progress.step == before.step:
            return progress.message != before.message
        gap = max(1, progress.total // LINES)
        is_last = progress.step == progress.total
        is_late = time.monotonic() - self.said_at >= SECONDS
        return is_last or is_late or progress.step - before.step >= gap

    def ended(self, result: Any) -> None:
        """What was written, and how long it took."""
        lines = [f"wrote {path}" for path in written_paths(result)]
        add_lines(self.folder, [*lines, f"done in {time.monotonic() - self.began:.1f} s"])


def spec_lines(spec: VerbSpec) -> list[str]:
    """The fields that were set, a line each."""
    text = yamlfile.dump(spec.to_data()) if spec.to_data() else ""
    return [f"  {line}" for line in text.splitlines()]


def progress_line(progress: Progress) -> str:
    """12 of 300, its message, and its numbers: losses first."""
    parts = []
    if progress.total > 1:
        parts.append(f"{progress.step} of {progress.total}")
    if progress.message:
        parts.append(progress.message)
    parts += numbers(progress.metrics)
    return ", ".join(parts)


def numbers(metrics: Mapping[str, Any]) -> list[str]:
    """Names and values, the most important ones first and few enough for a line."""
    found = [(name, value) for name, value in metrics.items() if is_number(value)]
    found.sort(key=lambda item: order(item[0]))
    return [f"{name} {value:.4g}" for name, value in found[:NUMBERS]]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def order(name: str) -> int:
    """Losses of the whole first, those of blocks last."""
    if "/" in name:
        return 3
    if name in SMALL_PRINT:
        return 2
    return 0 if "loss" in name else 1


def written_paths(result: Any) -> list[str]:
    """The files and folders that a result names and that are there."""
    values = result.values() if isinstance(result, Mapping) else []
    paths = [value for value in values if isinstance(value, str) and Path(value).is_absolute()]
    return [path for path in dict.fromkeys(paths) if Path(path).exists()]
