"""Checkpoints of a run: whole or not there, and the same whatever the number of processes."""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..models.file_io import sync_folder
from ..records import BadInput, jsonfile, write_atomic
from ..records.files import sweep_drafts
from ..training.optim import Average, Moments, Optimizers
from .processes import Processes

DAMAGE = (
    OSError,
    SafetensorError,
    RuntimeError,  # of torch, for a torn archive
    EOFError,
    UnpicklingError,
    ValueError,
    TypeError,
    KeyError,
)


@dataclass
class Position:
    """Where a run stands, as its checkpoints keep it."""

    index: int = 0  # of the stage
    step: int = 0  # within the stage
    samples: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0  # of the loop's own thread: a busy machine stretches the others
    values: list[float] = field(default_factory=list)  # the stage's losses, step by step
    recovery: list[dict[str, Any]] = field(default_factory=list)  # rows of SpanRecovery
    gap: dict[str, float] = field(default_factory=dict)  # the guidance gap after the last stage


@dataclass
class Saved:
    """What a checkpoint held beside the weights, until a stage takes it."""

    position: Position
    moments: Moments  # of the optimizers
    average: dict[str, torch.Tensor] | None
    average_steps: int


@dataclass
class Contents:
    """All of a checkpoint. student: its weights. random: torch's generator. key: of spec and plan."""

    student: dict[str, torch.Tensor]
    random: torch.Tensor
    key: str
    saved: Saved


def read_contents(folder: Path) -> Contents:
    """Raises one of DAMAGE for a checkpoint that is torn or not one."""
    try:
        about = jsonfile.read_object(folder / "run.json", "checkpoint")
    except BadInput as error:
        raise ValueError(error.found) from None
    average_steps = about.pop("average_steps")
    key = about.pop("key")
    weights = load_file(folder / "student.safetensors")
    state = torch.load(folder / "optimizer.pt", weights_only=True)
    average = None
    if (folder / "average.safetensors").exists():
        average = load_file(folder / "average.safetensors")
    saved = Saved(Position(**about), state["optimizers"], average, average_steps)
    return Contents(weights, state["rng"], key, saved)


@dataclass
class Checkpoints:
    """Folders `step-<n>` in `folder`, the newest `keep` of them; None keeps none.

    All processes take part, the first one writes.
    """

    folder: Path | None
    keep: int
    processes: Processes

    def finished(self) -> list[Path]:
        """The whole ones, oldest first."""
        return sorted(self.folder.glob("step-*")) if self.folder else []

    def save(
        self,
        number: int,
        key: str,
        position: Position,
        student: nn.Module,
        optimizers: Optimizers,
        average: Average | None,
    ) -> None:
        """Write a checkpoint under another name, then rename it; drop the oldest beyond `keep`.

        number: of the step in the whole run. key: names spec and plan.
        """
        if self.folder is None:
            return
        state = self.processes.state(student)
        moments = self.processes.whole(optimizers.state_dict())
        averaged = self.processes.whole(average.values) if average else None
        if self.processes.first:
            final = self.folder / f"step-{number:08d}"
            draft = self.folder / f".{final.name}.{os.getpid()}"
            self.sweep()
            draft.mkdir(parents=True, exist_ok=True)
            whole = {name: tensor.contiguous() for name, tensor in state.items()}
            save_file(whole, draft / "student.safetensors")
            if averaged is not None:
                save_file(averaged, draft / "average.safetensors")
            random = torch.get_rng_state()
            torch.save({"optimizers": moments, "rng": random}, draft / "optimizer.pt")
            steps = average.steps if average else 0
            about = {"key": key, "average_steps": steps, **asdict(position)}
            write_atomic(draft / "run.json", json.dumps(about))
            self._finish(draft, final)
        self.processes.wait()

    def _finish(self, draft: Path, final: Path) -> None:
        assert self.folder is not None
        for file in draft.iterdir():
            sync_folder(file)
        if final.exists():
            shutil.rmtree(final)
        os.rename(draft, final)
        sync_folder(self.folder)
        for old in self.finished()[: -max(self.keep, 1)]:
            shutil.rmtree(old)

    def restore(self, student: nn.Module, key: str) -> Saved | None:
        """Load the newest checkpoint's weights into the student; None where there is none.

        One that is damaged is passed over with a line on stderr. Raises BadInput for a checkpoint of
        another spec or plan, and where all are damaged.
        """
        self.sweep()
        finished = self.finished()
        damage = ""
        for folder in reversed(finished):
            try:
                contents = read_contents(folder)
            except DAMAGE as error:
                damage = f"checkpoint {folder} is damaged ({' '.join(str(error).split())[:120]})"
                if self.processes.first:
                    print(f"{damage}; an older one is tried", file=sys.stderr, flush=True)
                continue
            if contents.key != key:
                raise BadInput(
                    f"checkpoint {folder} of another spec or plan",
                    "one of this run",
                    "use its spec, or start without --resume",
                )
            self.processes.load(student, contents.student)
            torch.set_rng_state(contents.random)
            return contents.saved
        if finished:
            raise BadInput(damage, "a whole one", "start without --resume")
        return None

    def sweep(self) -> None:
        """Remove what killed attempts left of checkpoints: the weights of a student each."""
        if self.folder is not None and self.processes.first:
            sweep_drafts(self.folder, "step-*")

    def remove(self) -> None:
        """Delete all of them; a kill meanwhile leaves none that is half there."""
        if self.folder is None or not self.folder.exists():
            return
        sweep_drafts(self.folder.parent, glob.escape(self.folder.name))
        aside = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        os.rename(self.folder, aside)
        shutil.rmtree(aside, ignore_errors=True)

    def load_optimizers(self, optimizers: Optimizers, moments: Moments) -> None:
        """Moments as they were, where and how this run has its parameters."""
        for name, values in moments.items():
            like = optimizers.named[name]
            placed = {key: self.processes.like(v, like) for key, v in values.items()}
            optimizers.load_state(name, placed)

    def load_average(
        self, average: Average, values: Mapping[str, torch.Tensor], steps: int
    ) -> None:
        placed = {
            name: self.processes.like(values[name], value) for name, value in average.values.items()
        }
        average.restore(placed, steps)
