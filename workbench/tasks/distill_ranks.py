"""One distillation in several processes: the job's own is the first of them, the others run here
and go when it goes.

`workbench distill --processes N` starts them on this machine. On several machines any launcher that
sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT runs `python -m workbench.tasks.distill_ranks
GIVEN.json` for the ranks behind the first.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..workspace.store import Store
from .context import Context

READY = 300.0  # seconds for a process to import what it needs


class LostProcess(RuntimeError):
    """One of the processes is gone; the message says which, and its last lines."""


@contextmanager
def started(given: dict[str, Any], count: int, device: str, folder: Path) -> Iterator[Any]:
    """Start the processes behind the first, meet them, and yield what the loop needs to know of
    them (distill.Processes).

    given: what `follow` needs, as JSON. folder: for it and the others' logs.
    """
    from ..distillation.processes import joined

    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    file = folder / "ranks.json"
    file.write_text(json.dumps({**given, "address": address, "world": count, "device": device}))
    others = [_start(file, rank, count, folder) for rank in range(1, count)]
    try:
        _ready(others, folder)
        with joined(
            0, count, address, device_of(device, 0), sharded=bool(given.get("shard"))
        ) as processes:
            yield processes
        for child in others:
            child.wait(60)
    except RuntimeError as error:
        # a child that failed has told us by closing its connection; its exit code comes a moment
        # later
        time.sleep(0.5)
        _lost(others, folder, error)
        raise
    finally:
        for child in others:
            child.kill()
            child.wait()


def device_of(device: str, rank: int) -> str:
    return "cpu" if device == "cpu" else f"cuda:{rank}"


def _start(file: Path, rank: int, count: int, folder: Path) -> subprocess.Popen[bytes]:
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    (folder / f"ready-{rank}").unlink(missing_ok=True)
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH")) if part)
    with open(folder / f"rank-{rank}.log", "wb") as log:
        environment = {
            **os.environ,
            "RANK": str(rank),
            "PARENT": str(os.getpid()),
            "OMP_NUM_THREADS": threads,
            "PYTHONPATH": path,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "workbench.tasks.distill_ranks", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )


def _ready(others: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Wait until all have imported what they need: from then on a process that dies closes a
    connection, before nobody would notice.
    """
    end = time.monotonic() + READY
    while not all((folder / f"ready-{rank}").exists() for rank in range(1, len(others) + 1)):
        _lost(others, folder)
        if time.monotonic() > end:
            raise LostProcess(f"processes are not ready after {READY:.0f} s")
        time.sleep(0.05)


def _lost(
    others: list[subprocess.Popen[bytes]], folder: Path, cause: Exception | None = None
) -> None:
    for rank, child in enumerate(others, 1):
        if child.poll() is not None and child.returncode != 0:
            lines = (folder / f"rank-{rank}.log").read_text(errors="replace").strip().splitlines()
            raise LostProcess(
                f"process {rank} of {len(others) + 1} ended with "
                f"{child.returncode}: {lines[-1] if lines else 'no word'}"
            ) from cause


def die_with_parent(parent: int) -> None:
    """The kernel ends this process when its parent goes, however that goes; also when it is gone
    already.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """A process behind the first. It stops when the first says so; signals that reach the whole
    group are the first one's to answer.
    """
    if "PARENT" in os.environ:  # not under a launcher, which is no parent of the first
        die_with_parent(int(os.environ["PARENT"]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from ..distillation.processes import joined
    from .distill import follow

    file = Path(sys.argv[1])
    given = json.loads(file.read_text())
    rank, device = (
        int(os.environ["RANK"]),
        device_of(given["device"], int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))),
    )
    (file.parent / f"ready-{rank}").touch()
    with joined(
        rank, given["world"], given["address"], device, sharded=bool(given.get("shard"))
    ) as processes:
        follow(given, Context(Store(given["workspace"]), device, resume=given["resume"]), processes)


if __name__ == "__main__":
    main()
