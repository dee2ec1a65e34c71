"""What the first process of a distillation tells the others, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..records import jsonfile, write_atomic
from .context import Context
from .distill_work import DistillWork
from .training_data import CachedData, DataSets


@dataclass(frozen=True)
class RankRequest:
    """spec: the verb's, as plain data. stages: a DistillSpec. data: rows of (name or null, kind,
    data, folder). attempt: of the job, which tells the request from an earlier one's.
    """

    spec: dict[str, Any]
    stages: dict[str, Any]
    data: list[tuple[str | None, str, str, str]]
    resume: bool
    workspace: str
    shard: bool
    plugins: list[str]
    address: str = ""  # host:port where the processes meet
    world: int = 1
    nodes: int = 1
    attempt: int = 0
    device: str = "cpu"

    @property
    def per_node(self) -> int:
        """Processes of one node."""
        return self.world // self.nodes

    @classmethod
    def of(cls, work: DistillWork, context: Context, resume: bool) -> RankRequest:
        data = []
        for name, cached in work.sets.cached.items():
            data.append((name, cached.kind, cached.data, str(cached.folder)))
        # the output as the first process has it: the workspace would give the others another one
        spec = {**work.spec.to_data(), "out": str(work.out)}
        if work.held is not None:  # memory that the first process took is not free for the others
            spec["placement"] = work.held.placement.name
        return cls(
            spec=spec,
            stages=work.stages.model_dump(mode="json"),
            data=data,
            resume=resume,
            workspace=str(context.store.workspace),
            shard=work.spec.shard,
            plugins=work.spec.plugins,
        )

    def sets(self) -> DataSets:
        """The finished caches."""
        cached: dict[str | None, CachedData] = {}
        for name, kind, data, folder in self.data:
            cached[name] = CachedData(kind, data, Path(folder))
        return DataSets(cached)

    def save(self, path: Path) -> None:
        write_atomic(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> RankRequest:
        return cls(**jsonfile.read_object(path, "request"))
