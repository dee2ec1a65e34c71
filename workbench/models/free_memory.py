"""How much memory is free for a process, on a GPU or on the host."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")


def free_memory(device: str) -> int:
    """Bytes that a process can still take there: of the host what the system has to give, and no
    more than the limits of the process's cgroups (a job's limit) leave.
    """
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    free = int(psutil.virtual_memory().available)
    for folder in cgroup_folders():
        left = left_of_limit(folder)
        if left is not None:
            free = min(free, left)
    return max(free, 0)


def cgroup_folders(membership: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """The folders of this process's cgroup (version 2) and of those around it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return []
    for line in lines:
        if line.startswith("0::"):
            folder = CGROUPS / line.removeprefix("0::").lstrip("/")
            inside = [folder, *folder.parents]
            return [each for each in inside if each.is_relative_to(CGROUPS)]
    return []


def left_of_limit(folder: Path) -> int | None:
    """Bytes between a cgroup's use and its limit; None where it has none. Cached file pages count
    as used there, but go when memory is short.
    """
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        rows = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    if not limit.isdigit():
        return None
    stat = {row[0]: int(row[1]) for row in rows}
    reclaimable = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    return int(limit) - used + reclaimable
