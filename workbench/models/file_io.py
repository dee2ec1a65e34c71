"""Writing so that it is on the disk, whole or not at all, and reading without filling the page
cache.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..records.files import is_running


def forget(file: BinaryIO, size: int = 0) -> None:
    """Drop the file's pages, or those of its first bytes, from the page cache: dirty ones go to the
    disk, the next read comes from it.
    """
    if hasattr(os, "posix_fadvise"):  # not everywhere
        os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)


def write_synced(path: Path, text: str) -> None:
    """Write text and wait until it is on the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries (new names, renames), or a file's bytes, are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def draft_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` to write to; where that went well, it takes the place of `out`,
    older folder or none, in one step.

    A killed writer leaves what was there before; the next one clears its draft away.
    """
    sweep(out)
    work = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        yield work
        put_in_place(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sweep(out: Path) -> None:
    """Clear up after killed writers of the same folder: drafts go, a folder that stood aside comes
    back.
    """
    for stale in out.parent.glob(f".{out.name}.*-*"):
        kind, _, pid = stale.name.removeprefix(f".{out.name}.").partition("-")
        if kind not in ("partial", "old") or not pid.isdigit() or is_running(int(pid)):
            continue
        if kind == "old" and not out.exists():
            os.rename(stale, out)
        else:
            shutil.rmtree(stale, ignore_errors=True)


def put_in_place(work: Path, out: Path) -> None:
    """Sync a finished folder and give it the name `out`; an older folder of that name is then
    called `work`.
    """
    for folder, _, _ in os.walk(work):
        sync_folder(Path(folder))
    if not out.exists():
        os.rename(work, out)
    elif not exchange(work, out):
        # for a moment there is neither: the next writer would bring the old one back
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
