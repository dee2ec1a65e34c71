"""Checkpoints of a run: whole or not there, as many as asked for, and the same whatever the number
of processes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..models import checkpoints
from ..records import BadInput, write_atomic
from ..training.optim import Average, Optimizers
from .parallel import Processes


@dataclass
class Checkpoints:
    """Folders `step-<n>` in `folder`; None keeps none. All processes take part, the first one
    writes.
    """

    folder: Path | None
    keep: int
    processes: Processes

    def finished(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*")) if self.folder else []

    def save(
        self,
        step: int,
        student: nn.Module,
        optimizers: Optimizers,
        average: Average | None,
        about: Mapping[str, Any],
    ) -> None:
        """Write a checkpoint under another name, then rename it; drop the oldest beyond the budget."""
        if self.folder is None:
            return
        whole = self.processes.whole
        state, moments = self.processes.state(student), whole(optimizers.state_dict())
        averaged = whole(average.values) if average else None
        if self.processes.first:
            final = self.folder / f"step-{step:08d}"
            draft = self.folder / f".{final.name}.{os.getpid()}"
            draft.mkdir(parents=True, exist_ok=True)
            save_file(
                {name: t.contiguous() for name, t in state.items()}, draft / "student.safetensors"
            )
            if averaged is not None:
                save_file(averaged, draft / "average.safetensors")
            torch.save(
                {"optimizers": moments, "rng": torch.get_rng_state()}, draft / "optimizer.pt"
            )
            write_atomic(draft / "run.json", json.dumps(about))
            self._finish(draft, final)
        self.processes.wait()

    def _finish(self, draft: Path, final: Path) -> None:
        assert self.folder is not None
        for file in draft.iterdir():
            checkpoints.sync_folder(file)
        if final.exists():
            shutil.rmtree(final)
        os.rename(draft, final)
        checkpoints.sync_folder(self.folder)
        for old in self.finished()[: -max(self.keep, 1)]:
            shutil.rmtree(old)

    def restore(self, student: nn.Module, key: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Load the newest checkpoint's weights into the student; its notes, and what optimizers and
        average were.
        """
        newest = self.finished()[-1:]
        if not newest:
            return None
        about = json.loads((newest[0] / "run.json").read_text())
        if about["key"] != key:
            raise BadInput(
                f"checkpoint {newest[0]} is of another spec or plan",
                "one of this run",
                "use its spec, or start without --resume",
            )
        self.processes.load(student, load_file(newest[0] / "student.safetensors"))
        state = torch.load(newest[0] / "optimizer.pt", weights_only=True)
        torch.set_rng_state(state["rng"])
        average = newest[0] / "average.safetensors"
        return about, {
            "optimizers": state["optimizers"],
            "average_steps": about["average_steps"],
            "average": load_file(average) if average.exists() else None,
        }

    def load_optimizers(
        self, optimizers: Optimizers, states: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Moments as they were, where and how this run has its parameters."""
        optimizers.load_state_dict(
            {
                name: {
                    key: self.processes.like(value, optimizers.named[name])
                    for key, value in moments.items()
                }
                for name, moments in states.items()
            }
        )

    def load_average(
        self, average: Average, values: Mapping[str, torch.Tensor], steps: int
    ) -> None:
        average.restore(
            {
                name: self.processes.like(values[name], value)
                for name, value in average.values.items()
            },
            steps,
        )
