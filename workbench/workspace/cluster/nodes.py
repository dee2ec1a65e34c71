"""One job on several nodes: its first node runs the job, the others wait for its processes.

first node    workbench.tasks FOLDER ATTEMPT: the job, which starts its own part of the processes
other nodes   workbench.tasks.node_worker FOLDER ATTEMPT NODE: starts that node's part, once the
              first has written in the job's folder where they meet

Files in `cluster/` of the job's folder: over-<attempt> once the job has ended, lost-<attempt>-<who>
for a process or a node that failed, with what is known of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...records import write_atomic

COUNT = "WORKBENCH_NODES"
HOST = "WORKBENCH_NODE_ADDRESS"
ATTEMPT = "WORKBENCH_ATTEMPT"


@dataclass(frozen=True)
class Nodes:
    """The nodes of the job that this process is. host: the address of the first. attempt: of the
    job; what an earlier one left in its folder does not count.
    """

    count: int = 1
    host: str = "127.0.0.1"
    attempt: int = 0

    @classmethod
    def of_slurm(cls, attempt: int) -> Nodes:
        """Of the job of Slurm that this process belongs to; asked on the first node."""
        count = int(os.environ.get("SLURM_STEP_NUM_NODES") or 1)
        host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        return cls(count, host, attempt)

    @classmethod
    def of_environment(cls) -> Nodes:
        """From the `variables` of this process; one node where there are none."""
        if COUNT not in os.environ:
            return cls()
        variables = os.environ
        return cls(int(variables[COUNT]), variables[HOST], int(variables[ATTEMPT]))

    @property
    def variables(self) -> Mapping[str, str]:
        """For the job's process."""
        if self.count == 1:
            return {}
        return {COUNT: str(self.count), HOST: self.host, ATTEMPT: str(self.attempt)}


def node_number() -> int:
    """Which of its job's nodes this is; 0 is the first, and where there is but one."""
    return int(os.environ.get("SLURM_NODEID") or 0)


def over_file(folder: Path, attempt: int) -> Path:
    """Written when an attempt has ended; the other nodes wait for nothing more then."""
    return folder / "cluster" / f"over-{attempt}"


def write_lost(folder: Path, attempt: int, who: str, what: str) -> None:
    """Tell the first node that a process, or all of a node, is gone."""
    file = folder / "cluster" / f"lost-{attempt}-{who}"
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, what + "\n")


def read_lost(folder: Path, attempt: int) -> str:
    """What the other nodes said of the first process that they lost; empty where none is."""
    files = sorted((folder / "cluster").glob(f"lost-{attempt}-*"), key=lambda f: f.stat().st_mtime)
    return files[0].read_text(encoding="utf-8").strip() if files else ""
