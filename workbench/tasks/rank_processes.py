"""Starting the processes behind the first of a distillation, and noticing when one is lost.

The job's own process is the first of them. What the others do: `rank_worker.py`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..distillation.processes import Processes, joined
from ..workspace.processes import environment
from .rank_request import RankRequest

READY = 300.0  # seconds for a process to import what it needs
PARENT = "WORKBENCH_PARENT"  # the first process's id, to its children
PR_SET_PDEATHSIG = 1  # Linux's prctl: the signal to get when the parent dies
Child = subprocess.Popen[bytes]


class LostProcess(RuntimeError):
    """One of the processes is gone; the message says which, and its last line."""


@contextmanager
def started(request: RankRequest, count: int, device: str, folder: Path) -> Iterator[Processes]:
    """Start the processes behind the first, meet them, and end them.

    folder: for the request and the others' logs. Raises LostProcess where one of them fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = free_address()
    file = folder / "ranks.json"
    replace(request, address=address, world=count, device=device).save(file)
    others = [start(file, rank, count, folder) for rank in range(1, count)]
    try:
        wait_until_ready(others, folder)
        first = device_of(device, 0)
        with joined(0, count, address, first, sharded=request.shard) as processes:
            yield processes
        for child in others:
            child.wait(60)
    except RuntimeError as error:
        # a child that failed has closed its connection; its exit code comes a moment later
        time.sleep(0.5)
        check_alive(others, folder, error)
        raise
    finally:
        for child in others:
            child.kill()
            child.wait()


def free_address() -> str:
    """host:port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def device_of(device: str, rank: int) -> str:
    return "cpu" if device == "cpu" else f"cuda:{rank}"


def start(file: Path, rank: int, count: int, folder: Path) -> Child:
    """Start one process; its output goes into rank-<n>.log of the folder."""
    (folder / f"ready-{rank}").unlink(missing_ok=True)
    threads = max(1, (os.cpu_count() or 1) // count)
    variables = {
        "OMP_NUM_THREADS": str(threads),
        **environment(),
        "RANK": str(rank),
        PARENT: str(os.getpid()),
    }
    with open(folder / f"rank-{rank}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workbench.tasks.rank_worker", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables,
        )


def wait_until_ready(others: list[Child], folder: Path) -> None:
    """Wait until all have imported what they need.

    From then on a process that dies closes a connection; before, nobody would notice.
    """
    end = time.monotonic() + READY
    while not all((folder / f"ready-{rank}").exists() for rank in range(1, len(others) + 1)):
        check_alive(others, folder)
        if time.monotonic() > end:
            raise LostProcess(f"processes are not ready after {READY:.0f} s")
        time.sleep(0.05)


def check_alive(others: list[Child], folder: Path, cause: Exception | None = None) -> None:
    """Raise LostProcess where a process has failed."""
    for rank, child in enumerate(others, 1):
        if child.poll() is None or child.returncode == 0:
            continue
        lines = (folder / f"rank-{rank}.log").read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no output"
        where = f"process {rank} of {len(others) + 1}"
        raise LostProcess(f"{where} ended with {child.returncode}: {last}") from cause


def die_with_parent(parent: int) -> None:
    """On Linux the kernel ends this process when its parent goes, however that goes.

    Also when it is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
