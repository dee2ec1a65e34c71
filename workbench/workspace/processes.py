"""Processes and locks: is a process still the one that was started, who holds a device, and how to
start a process that outlives its parent.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

START_TOLERANCE = 0.5  # seconds
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PR_SET_PDEATHSIG = 1  # Linux's prctl: the signal to get when the parent dies
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # beside Ctrl-C: stop with a checkpoint

_started: list[subprocess.Popen[bytes]] = []  # polled by us, so that none stays a zombie


@dataclass(frozen=True)
class ProcessIdentity:
    """What tells a process from a later one with the same number.

    start: seconds from the start of the machine to the start of the process. boot: names the start
    of the machine. Neither changes when the clock is set.
    """

    pid: int
    start: float
    boot: str


def identity(pid: int | None = None) -> ProcessIdentity | None:
    """The identity of a process, of this one by default; None where it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessIdentity(process.pid, start_of(process), boot_id())
    except (psutil.Error, OSError):
        return None


def start_of(process: psutil.Process) -> float:
    """Seconds from the start of the machine to the start of a process.

    Linux says so itself; elsewhere it is the difference of two times of the clock.
    """
    stat = Path(f"/proc/{process.pid}/stat")
    if stat.exists():
        behind_name = stat.read_text().rpartition(")")[2].split()
        return int(behind_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5)
    start: float = process.create_time() - psutil.boot_time()
    return start


def boot_id() -> str:
    """Names the start of the machine: Linux's random id; elsewhere its time, to ten minutes."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return str(round(psutil.boot_time() / 600))


def alive(process: ProcessIdentity | None) -> bool:
    """Whether that process still runs; one that has ended and one before a restart do not."""
    if process is None:
        return False
    current = identity(process.pid)
    if current is None or current.boot != process.boot:
        return False
    return abs(current.start - process.start) < START_TOLERANCE


def terminate(process: ProcessIdentity | None) -> None:
    """Ask a process to stop (SIGTERM); its children are its own concern."""
    if process is not None and alive(process):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGTERM)


def kill(process: ProcessIdentity | None) -> None:
    """End a process by force (SIGKILL), with its group where it leads one."""
    if process is None or not alive(process):
        return
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)


def try_lock(path: Path) -> int | None:
    """An exclusive flock as an open descriptor, or None where another process holds it.

    Close the descriptor to release the lock.
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


@contextmanager
def device_lock(workspace: Path, device: str, wait: Callable[[], None]) -> Iterator[None]:
    """The device's lock, as soon as whoever has it lets go. The CPU is shared: it needs none.

    wait: called between tries; it may raise to give up.
    """
    if device == "cpu":
        yield
        return
    path = lock_path(workspace, "device", device)
    lock = try_lock(path)
    while lock is None:
        wait()
        lock = try_lock(path)
    try:
        yield
    finally:
        os.close(lock)


def start_detached(
    arguments: list[str],
    log: Path,
    pass_fds: tuple[int, ...] = (),
    fresh_log: bool = False,
    holds_sigterm: bool = False,
) -> subprocess.Popen[bytes]:
    """Run `python ARGUMENTS` in its own session. fresh_log: what the log said before goes.
    holds_sigterm: it starts with SIGTERM and SIGUSR1 blocked, and lets them in when it knows what to
    do with one: a SIGTERM during its imports would kill it.

    Output goes to a file, never to a pipe: a pipe whose reader has gone would stall the process.
    """
    _started[:] = [process for process in _started if process.poll() is None]
    if fresh_log:
        log.write_bytes(b"")
    with open(log, "ab", buffering=0) as out, stop_signals_blocked(holds_sigterm):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=pass_fds,
            start_new_session=True,
            env=environment(),
        )
    _started.append(process)
    return process


def start_attached(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Run `python ARGUMENTS` as a process that the kernel ends when this one does (on Linux).

    It starts with the signals to stop blocked, as those of `holds_sigterm` do. SIGUSR2, which
    submitit takes for itself, reaches all processes of a Slurm job; this one ignores it.
    """

    def prepare() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    with open(log, "ab", buffering=0) as out, stop_signals_blocked(True):
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=prepare,
            env=environment(),
        )


def environment() -> dict[str, str]:
    """The variables of a process that runs a part of this package, and of its own children.

    PYTHONSAFEPATH: nothing is imported from the current folder, which is the user's.
    """
    return {
        **os.environ,
        "PYTHONPATH": search_path(),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }


def search_path() -> str:
    """$PYTHONPATH with the folder that holds this package in front. An empty entry, which Python takes
    for the current folder, is left out."""
    package = str(Path(__file__).resolve().parents[2])
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([package, *(path for path in others if path not in ("", package))])


@contextmanager
def stop_signals_blocked(blocked: bool) -> Iterator[None]:
    """Block SIGTERM and SIGUSR1 in this thread, so that a process started meanwhile has them
    blocked, too."""
    if not blocked:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ensure(module: str, role: str, workspace: Path, device: str) -> bool:
    """Start `python -m module` for a device unless one runs there. Returns whether one was started.

    The process gets the lock with its start (`--lock`, a descriptor): its imports take seconds, and
    whoever looks meanwhile would start another one, each slowing down the others.
    """
    lock = try_lock(lock_path(workspace, role, device))
    if lock is None:
        return False
    command = ["-m", module, "--workspace", str(workspace), "--device", device]
    log = log_path(workspace, role, device)
    try:
        command += ["--lock", str(lock)]
        start_detached(command, log, pass_fds=(lock,), fresh_log=True)
    finally:
        os.close(lock)  # a child that has it holds it on
    return True


def log_path(workspace: Path, role: str, device: str) -> Path:
    """What the last process of a role on a device printed."""
    return lock_path(workspace, role, device).with_suffix(".log")


def is_held(path: Path) -> bool:
    """Whether a process holds a lock."""
    lock = try_lock(path)
    if lock is not None:
        os.close(lock)
    return lock is None
