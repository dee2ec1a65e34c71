"""The engines that run jobs on other machines: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...plugins import Lazy, Registry, registry
from . import engine_texts
from .engine_files import Answer
from .settings import ClusterSettings, Order


@dataclass(frozen=True)
class Sending:
    """A job to be sent to an engine. attempt: its next one. tasks: how many of an array, 1 for
    none. after: the engine's id of a job that must be done before; empty for none.
    """

    folder: Path
    title: str
    settings: ClusterSettings
    device: str
    attempt: int
    tasks: int = 1
    after: str = ""

    @property
    def gpus(self) -> int:
        return 0 if self.device == "cpu" else self.settings.gpus


class Client(Protocol):
    """How we talk to an engine. Each function may raise BadInput, with what to do."""

    def check(self) -> None:
        """Raises BadInput where this machine cannot submit."""

    def send(self, sending: Sending) -> str:
        """Submit a job; returns the engine's id of it."""

    def ask(self, ids: list[str]) -> dict[str, Answer]:
        """What the engine says of its jobs. Raises OSError where it does not answer."""

    def withdraw(self, job: str) -> None:
        """Have the engine end a job, or forget one that waits."""

    def follow(self, job: str, after: str) -> None:
        """Have a job that waits wait for another one. Raises OSError where the engine refuses."""


@dataclass(frozen=True)
class Engine:
    """One row. about: one sentence. file: writes the file that the engine takes. client: None
    where files are all we do for it.
    """

    about: str
    file: Callable[[Order], str]
    client: Client | None = None


ROWS: dict[str, Any] = {
    "slurm": Lazy("workbench.workspace.cluster.slurm:ENGINE", about="Slurm, by submitit"),
    "sky": Engine("SkyPilot: a managed job on any cloud", engine_texts.sky_file),
    "dstack": Engine("dstack: a task", engine_texts.dstack_file),
    "ray": Engine("Ray: a job on a cluster that runs already", engine_texts.ray_file),
}
ENGINES: Registry[Engine] = registry("engine")
