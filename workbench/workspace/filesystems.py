"""Which kind of file system a folder lies on. Some are shared between machines, whose memory is not:
SQLite's write-ahead log does not work there (https://sqlite.org/wal.html).
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

SHARED = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "juicefs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "sshfs",
        "vboxsf",
        "virtiofs",
        "wekafs",
    ]
)


def is_shared(folder: Path) -> bool:
    """Whether other machines may have the same folder."""
    return kind_of(folder, mounts()).removeprefix("fuse.") in SHARED


def mounts() -> list[tuple[str, str]]:
    """(folder, kind) of everything that is mounted, in the order of mounting."""
    return [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]


def kind_of(folder: Path, mounted: list[tuple[str, str]]) -> str:
    """The kind of the innermost mount that holds a folder; of two at one place the later one hides
    the other. Empty where there is none.
    """
    real = os.path.realpath(folder)
    deepest, kind = -1, ""
    for place, name in mounted:
        inside = place == "/" or real == place or real.startswith(place + "/")
        if inside and len(place) >= deepest:
            deepest, kind = len(place), name
    return kind
