"""Several processes on one machine: start them, join them through gloo, agree on the time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from .optim import rank_and_world

# glibc otherwise returns every large buffer to the kernel and faults it in again: a third of a
# training step.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "200000000",
}


def run_processes(module: str, arguments: list[str], processes: int) -> None:
    """Run `python -m module ARGUMENTS` in n processes that share the cores; raise if one fails,
    after ending the others.

    Call it from the main thread: while it runs, SIGTERM ends the workers too.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers end too
    with tempfile.TemporaryDirectory() as folder:
        base = (
            os.environ
            | MALLOC
            | {"DEMO_RENDEZVOUS": str(Path(folder) / "store"), "DEMO_WORLD": str(processes)}
        )
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=base | {"DEMO_RANK": str(rank), "OMP_NUM_THREADS": threads},
            )
            for rank in range(processes)
        ]
        try:
            while any(worker.poll() is None for worker in workers):
                if any(worker.poll() not in (None, 0) for worker in workers):
                    raise RuntimeError(f"a worker of {module} failed; its message is above")
                time.sleep(0.3)
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.terminate()
            signal.signal(signal.SIGTERM, before)


def join() -> tuple[int, int]:
    """Join the group that `run_processes` started, if any; returns (rank, world)."""
    world = int(os.environ.get("DEMO_WORLD", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group(
            "gloo",
            init_method=f"file://{os.environ['DEMO_RENDEZVOUS']}",
            rank=int(os.environ["DEMO_RANK"]),
            world_size=world,
        )
    return rank_and_world()


def agree(value: float) -> float:
    """The first process's value, on every process."""
    if rank_and_world()[1] == 1:
        return value
    box = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(box, 0)
    return float(box)


def clock(minutes: float) -> Callable[[], float]:
    """Share of the given minutes that has passed, the same on every process; starts at the first
    call.
    """
    start: list[float] = []

    def progress() -> float:
        start.append(time.time())
        return min(1.0, agree((time.time() - start[0]) / (60 * minutes)))

    return progress
