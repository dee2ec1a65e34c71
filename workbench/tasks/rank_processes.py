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
from dataclasses import dataclass, replace
from pathlib import Path

from ..distillation.processes import Processes, joined
from ..distillation.processes import environment as variables
from ..workspace.cluster.nodes import Nodes, read_lost
from ..workspace.processes import environment
from .rank_request import RankRequest

READY = 300.0  # seconds for a process to import what it needs
PATIENCE = 20.0  # seconds for word from another node of a process that it lost
PARENT = "WORKBENCH_PARENT"  # the first process's id, to its children
PR_SET_PDEATHSIG = 1  # Linux's prctl: the signal to get when the parent dies
Child = subprocess.Popen[bytes]


class LostProcess(RuntimeError):
    """One of the processes is gone; the message says which, and its last line."""


@dataclass
class Rank:
    """A process behind the first, on this machine."""

    number: int
    child: Child
    log: Path


@contextmanager
def started(request: RankRequest, count: int, device: str, folder: Path) -> Iterator[Processes]:
    """Start the processes behind the first, meet them, and end them.

    On several nodes the others start theirs when they see the request. folder: for the request and
    the others' logs. Raises LostProcess where one of them fails.
    """
    nodes = Nodes.of_environment()
    folder.mkdir(parents=True, exist_ok=True)
    address = free_address(nodes.host)
    request = replace(
        request,
        address=address,
        world=count,
        nodes=nodes.count,
        attempt=nodes.attempt,
        device=device,
    )
    for rank in range(1, count):
        ready_file(folder, rank).unlink(missing_ok=True)
    file = folder / "ranks.json"
    request.save(file)
    others = [start(file, rank, request) for rank in range(1, request.per_node)]
    watch = Watch(folder, request, others)
    try:
        watch.wait_until_ready()
        first = device_of(device, 0)
        local = {"LOCAL_WORLD_SIZE": str(request.per_node)}
        with (
            variables(local),
            joined(0, count, address, first, sharded=request.shard) as processes,
        ):
            yield processes
        for other in others:
            other.child.wait(60)
    except RuntimeError as error:
        # one that failed has closed its connection; its exit code comes a moment later
        watch.wait_for_a_loss(PATIENCE if nodes.count > 1 else 0.5)
        watch.check(error)
        raise
    finally:
        for other in others:
            other.child.kill()
            other.child.wait()


def free_address(host: str = "127.0.0.1") -> str:
    """host:port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def device_of(device: str, rank: int) -> str:
    """rank: among the processes of one machine."""
    return "cpu" if device == "cpu" else f"cuda:{rank}"


def ready_file(folder: Path, rank: int) -> Path:
    """Written by a process that has imported what it needs."""
    return folder / f"ready-{rank}"


def start(file: Path, rank: int, request: RankRequest) -> Rank:
    """Start one process; its output goes into rank-<n>.log beside the request."""
    per_node = request.per_node
    threads = max(1, (os.cpu_count() or 1) // per_node)
    own = {
        "OMP_NUM_THREADS": str(threads),
        **environment(),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % per_node),
        "LOCAL_WORLD_SIZE": str(per_node),
        PARENT: str(os.getpid()),
    }
    log = file.with_name(f"rank-{rank}.log")
    with open(log, "wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "workbench.tasks.rank_worker", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=own,
        )
    return Rank(rank, child, log)


@dataclass
class Watch:
    """The first process's eye on the others."""

    folder: Path
    request: RankRequest
    others: list[Rank]  # of this machine

    def wait_until_ready(self) -> None:
        """Wait until all have imported what they need.

        From then on a process that dies closes a connection; before, nobody would notice.
        """
        end = time.monotonic() + READY
        waiting = set(range(1, self.request.world))
        while waiting:
            self.check()
            waiting = {rank for rank in waiting if not ready_file(self.folder, rank).exists()}
            if waiting and time.monotonic() > end:
                raise LostProcess(f"process {min(waiting)} is not ready after {READY:.0f} s")
            time.sleep(0.05)

    def loss(self) -> str:
        """What is known of a process that has failed; empty where none has."""
        for other in self.others:
            if failed(other):
                return how_it_ended(other, self.request.world)
        return read_lost(self.folder, self.request.attempt) if self.request.nodes > 1 else ""

    def wait_for_a_loss(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.loss() and time.monotonic() < end:
            time.sleep(0.1)

    def check(self, cause: Exception | None = None) -> None:
        """Raise LostProcess where a process has failed."""
        loss = self.loss()
        if loss:
            raise LostProcess(loss) from cause


def failed(rank: Rank) -> bool:
    return rank.child.poll() not in (None, 0)


def how_it_ended(rank: Rank, world: int) -> str:
    """How a process ended: its exit code and its last line."""
    lines = rank.log.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    return f"process {rank.number} of {world} ended with {rank.child.returncode}: {last}"


def die_with_parent(parent: int) -> None:
    """On Linux the kernel ends this process when its parent goes, however that goes.

    Also when it is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
