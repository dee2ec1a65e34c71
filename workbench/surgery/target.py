"""The folder a build writes to: what may be replaced, and what a build took."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from ..records import BadInput


def check_target(out: Path, source: Path, what: str = "teacher") -> None:
    """Only a new folder, an empty one or an older student may be written to, and nothing in or
    around the folder that is read. Raises BadInput.

    source: what is read, `what` it is.
    """
    target = out.resolve()
    read = source.resolve()
    if target.is_relative_to(read) or read.is_relative_to(target):
        raise BadInput(
            f"-o {out} is (part of) the {what} {read}", "a folder of its own", "choose another -o"
        )
    if out.exists() and not is_replaceable(out):
        raise BadInput(
            f"{out} exists and is not a student (no card.json)",
            "a new folder or a student to replace",
            "choose another -o",
        )


def is_replaceable(folder: Path) -> bool:
    """Whether this is a student, or an empty folder."""
    if not folder.is_dir():
        return False
    return (folder / "card.json").is_file() or not any(folder.iterdir())


def existing(path: Path) -> Path:
    """The nearest folder on the way up that exists."""
    return path if path.is_dir() else existing(path.parent)


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
