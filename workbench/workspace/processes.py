"""Processes and locks: is that process still the one we started, who holds the device, start
something that outlives us.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_started: list[subprocess.Popen[bytes]] = []  # ours to poll, so that none stays a zombie


def boot_id() -> str:
    """Changes with every start of the machine. $WORKBENCH_BOOT_ID overrides it (tests)."""
    if name := os.environ.get("WORKBENCH_BOOT_ID"):
        return name
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def start_ticks(pid: int) -> int | None:
    """When the process started (field 22 of /proc/pid/stat), or None where it is gone or a zombie."""
    try:
        # the name may hold blanks
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def identity(pid: int | None = None) -> dict[str, Any]:
    """What tells a process from a later one with the same number."""
    pid = pid or os.getpid()
    return {"pid": pid, "start": start_ticks(pid), "boot": boot_id()}


def alive(pid: int | None, start: int | None, boot: str | None) -> bool:
    return pid is not None and start is not None and boot == boot_id() and start_ticks(pid) == start


def signal_group(
    pid: int, start: int, boot: str, number: signal.Signals, group: bool = True
) -> None:
    """Signal a process we know, with its group; nothing where it is gone."""
    if alive(pid, start, boot):
        with suppress(ProcessLookupError, PermissionError):
            if group and os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)


def try_lock(path: Path) -> int | None:
    """An exclusive flock as an open descriptor, or None where another holds it. Close it to
    release.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_path(workspace: Path, role: str, device: str) -> Path:
    """The lock file of a role ("worker", "session", "device") on a device of this workspace."""
    return workspace / "jobs" / f".{role}-{device.replace(':', '')}.lock"


def start_detached(
    arguments: list[str], log: Path, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """`python ARGUMENTS` in its own session. Output goes to a file, never to a pipe: a reader that
    goes away must not stall it.
    """
    _started[:] = [p for p in _started if p.poll() is None]
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    with open(log, "ab", buffering=0) as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=pass_fds,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        )
    _started.append(process)
    return process


def ensure(module: str, role: str, workspace: Path, device: str) -> bool:
    """Start `python -m module` for a device unless one runs there. Returns whether one was started.

    The probe holds the lock for a moment; the process started tries for a second, so two probes
    cannot leave none.
    """
    lock = try_lock(lock_path(workspace, role, device))
    if lock is None:
        return False
    os.close(lock)
    log = workspace / "jobs" / f".{role}-{device.replace(':', '')}.log"
    start_detached(["-m", module, "--workspace", str(workspace), "--device", device], log)
    return True


def default_device() -> str:
    """$WORKBENCH_DEVICE, else the first GPU where there is one and torch can use it, else the CPU.
    Does not import torch.
    """
    if name := os.environ.get("WORKBENCH_DEVICE"):
        return name
    with suppress(metadata.PackageNotFoundError):
        if Path("/dev/nvidia0").exists() and "+cpu" not in metadata.version("torch"):
            return "cuda"
    return "cpu"
