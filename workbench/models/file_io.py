"""Writing so that it is on the disk, and reading without filling the page cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


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
