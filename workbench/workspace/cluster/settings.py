"""What a job asks of a cluster: a file `slurm.yaml` in the workspace, or one that `--on` names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ...plugins import registry
from ...records import BadInput
from ...records.record import Record


class ClusterSettings(Record):
    """What a job asks of a cluster.

    engine: a row of the table of engines. setup: shell lines that the node runs before the job
    (`module load ..`, `source .. /activate`). python: the interpreter there, by default the one
    that submits. nodes: machines of one distillation, which shares its processes evenly between
    them. minutes: the time limit. notice: seconds before the limit at which the job is asked to
    stop, so that it can write a checkpoint. requeues: how often it is put back after that. gpus,
    cpus, memory (in GB): of a node, or of one task of an array; gpus does not count for
    `--device cpu`. image: a container, for engines that take one. options: more options of the
    engine, by their long names.
    """

    what: ClassVar[str] = "cluster settings"

    engine: str = "slurm"
    setup: str = ""
    python: str = ""
    nodes: int = Field(default=1, ge=1)
    minutes: int = Field(default=240, ge=1)
    notice: int = Field(default=120, ge=1)
    requeues: int = Field(default=100, ge=0)
    gpus: int = Field(default=1, ge=0)
    cpus: int = Field(default=4, ge=1)
    memory: float | None = Field(default=None, gt=0)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    image: str | None = None
    options: dict[str, str | int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """A command to be written into an engine's file.

    name: of the job. command: its words, to be quoted by whoever writes them. device: "cpu" or
    "cuda".
    """

    name: str
    command: list[str]
    settings: ClusterSettings
    device: str = "cuda"

    @property
    def gpus(self) -> int:
        return 0 if self.device == "cpu" else self.settings.gpus


def settings_of(on: str, workspace: Path) -> ClusterSettings:
    """The settings that `--on` names: an engine, whose file `<engine>.yaml` of the workspace is
    read where it is there, or a YAML file. Raises BadInput.
    """
    if on.endswith((".yaml", ".yml")):
        return checked(ClusterSettings.load(Path(on).expanduser()))
    if on not in registry("engine"):
        names = ", ".join(registry("engine").names())
        raise BadInput(f"--on {on}", f"{names}, or a YAML file of settings", "choose one")
    file = workspace / f"{on}.yaml"
    if not file.exists():
        return ClusterSettings(engine=on)
    return checked(ClusterSettings.load(file).model_copy(update={"engine": on}))


def checked(settings: ClusterSettings) -> ClusterSettings:
    """The settings, once their engine is known. Raises BadInput for another one."""
    registry("engine")[settings.engine]
    return settings
