"""The folder a build writes to: what may be replaced, what is cleared, how it gets its name."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from pathlib import Path

from ..models.file_io import sync_folder
from ..records import BadInput


def check_target(out: Path, teacher_path: Path) -> None:
    """Only a new folder, an empty one or an older student may be written to."""
    if (
        out.resolve() == teacher_path
        or teacher_path.is_relative_to(out.resolve())
        or out.resolve().is_relative_to(teacher_path)
    ):
        raise BadInput(
            f"target {out} is (part of) the teacher {teacher_path}",
            "a folder of its own",
            "choose another -o",
        )
    if out.exists() and not (
        out.is_dir() and ((out / "card.json").is_file() or not any(out.iterdir()))
    ):
        raise BadInput(
            f"{out} exists and is not a student (no card.json)",
            "a new folder or a student to replace",
            "choose another -o",
        )


def existing(path: Path) -> Path:
    """The nearest folder on the way up that exists."""
    return path if path.is_dir() else existing(path.parent)


def sweep(out: Path) -> None:
    """Clear up after killed builds of the same target: half-written folders go, a student that
    stood aside comes back.
    """
    for stale in out.parent.glob(f".{out.name}.*-*"):
        kind, _, pid = stale.name.removeprefix(f".{out.name}.").partition("-")
        if kind not in ("partial", "old") or not pid.isdigit() or _alive(int(pid)):
            continue
        if kind == "old" and not out.exists():
            os.rename(stale, out)
        else:
            shutil.rmtree(stale, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def publish(work: Path, out: Path) -> None:
    """Sync the finished folder and give it its name in one step. An older student is then in
    `work`, for the caller to remove.
    """
    for folder, _, _ in os.walk(work):
        sync_folder(Path(folder))
    if not out.exists():
        os.rename(work, out)
    elif not exchange(
        work, out
    ):  # for a moment there is neither: the next build would bring the old one back
        old = out.with_name(f".{out.name}.old-{os.getpid()}")
        os.rename(out, old)
        os.rename(work, out)
        os.rename(old, work)
    sync_folder(out.parent)


def exchange(one: Path, two: Path) -> bool:
    """Swap two names so that nobody sees either missing (renameat2, Linux); False where the system
    cannot.
    """
    call = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here = -100  # AT_FDCWD
    swap = 2  # RENAME_EXCHANGE
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(two), swap) == 0


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
