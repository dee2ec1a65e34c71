"""Metric recovery, the work: candidates choose a start, are trained on what the teacher feeds them,
and are scored in the teacher on held-out prompts."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, product
from typing import Any

import torch
from torch import nn

from ..families import StackRow
from ..models.block_cache import block_for, forget
from ..models.sampling import Call
from ..models.streaming import loaded
from ..records import BadInput, Progress, Span
from ..training.muon import block_matrices
from ..training.optim import Optimizers, lr_share
from .candidates import Candidate, candidates, waves
from .error import check_finite, relative_change
from .results import CallScores, Scores
from .scan import Scan
from .teacher_fed import TeacherFed, Trainee

BEFORE = "zero-shot"
AFTER = "recovered"
ROOM = 4 * 2**30  # bytes of candidates trained at once on a CPU; on a GPU half of what is free
HELD_OUT = 4  # one batch of prompts in so many is held out, at least one


@dataclass(frozen=True)
class Training:
    """How candidates are trained: `steps` of one recorded call each, Muon, the learning rate linear
    down to 0.

    longest: blocks of a span at most. room: bytes for the candidates that are trained at once;
    None: 4 GiB on a CPU, half of the free memory of a GPU.
    """

    steps: int = 60
    longest: int = 4
    lr: float = 1.5e-3
    seed: int = 0
    room: int | None = None


class Recovery:
    """Chooses how each candidate starts, trains it and scores it on held-out prompts.

    learn, test: the recorded calls to train on and to score on; no prompt is in both.
    """

    def __init__(self, scan: Scan, calls: Sequence[Call], training: Training) -> None:
        self.scan = scan
        self.training = training
        self.candidates = candidates(scan, training.longest)
        self.learn, self.test = split(calls)
        self.waves = waves(self.candidates, room(scan, training))
        self.fed = TeacherFed(scan)
        self.scores: dict[int, Scores] = {number: {} for number in range(len(self.test))}
        self.step = 0

    @property
    def total(self) -> int:
        """Steps of the progress: one a call on which starts are compared or candidates scored, one
        an optimizer step.
        """
        starts = sum(most_starts(wave) for wave in self.waves) * len(self.first_group)
        return starts + len(self.waves) * (2 * len(self.test) + self.training.steps)

    @property
    def first_group(self) -> list[Call]:
        """The calls on which starts are compared: the first batch of prompts at every timestep."""
        return [call for call in self.learn if call.group == self.learn[0].group]

    def run(self) -> Iterator[Progress]:
        """Wave after wave: choose starts, score, train, score again."""
        dtype = self.scan.replay.dtype
        for wave in self.waves:
            yield from self.choose(wave)
            blocks = [self.block(one, one.start, dtype) for one in wave]
            yield from self.score(wave, blocks, BEFORE)
            exact = torch.promote_types(dtype, torch.float32)
            blocks = [self.block(one, one.start, exact) for one in wave]
            yield from self.train(wave, blocks)
            blocks = [block.to(dtype).requires_grad_(False) for block in blocks]
            yield from self.score(wave, blocks, AFTER)

    def block(self, candidate: Candidate, span: Span, dtype: torch.dtype) -> nn.Module:
        """A block of its own that starts as `span` says.

        Never while the model runs: a copy would keep the swapped forward.
        """
        source = block_for(self.scan.transformer, candidate.stack, span)
        with loaded(source):
            block = copy.deepcopy(source)
        if not self.scan.keeps_edited:
            forget(self.scan.transformer)
        return block.to(dtype)

    def choose(self, wave: Sequence[Candidate]) -> Iterator[Progress]:
        """Give each candidate the init and gain with the least loss before training."""
        dtype = self.scan.replay.dtype
        count = most_starts(wave)
        for number in range(count):
            able = [one for one in wave if number < len(one.starts)]
            trainees = [Trainee(one, self.block(one, one.starts[number], dtype)) for one in able]
            for call in self.first_group:
                self.fed.run(call, trainees, Trainee.add, graph=False)
                where = f"timestep {call.timestep:.0f}"
                yield self.progress(f"starts, {number + 1} of {count}, {where}")
            for trainee in trainees:
                trainee.candidate.start_losses.append(trainee.total)
        for one in wave:
            one.choose_start()

    def train(self, wave: Sequence[Candidate], blocks: Sequence[nn.Module]) -> Iterator[Progress]:
        """Each candidate on its own: forward, backward and step, before the next one's forward."""
        trainees = [
            Trainee(one, block.requires_grad_(True), optimizer(block, one.row, self.training))
            for one, block in zip(wave, blocks, strict=True)
        ]
        for step, call in enumerate(self.drawn_calls()):
            self.fed.run(call, trainees, Trainee.learn)
            values = finite_losses(trainees, step)
            message = f"training {len(wave)} blocks, step {step + 1}"
            yield self.progress(message, loss=sum(values) / len(values))

    def drawn_calls(self) -> Iterator[Call]:
        """The calls to train on: all of them in random order, then again."""
        generator = torch.Generator().manual_seed(self.training.seed)
        order: list[int] = []
        for _ in range(self.training.steps):
            if not order:
                order = torch.randperm(len(self.learn), generator=generator).tolist()
            yield self.learn[order.pop()]

    def score(
        self, wave: Sequence[Candidate], blocks: Sequence[nn.Module], edit: str
    ) -> Iterator[Progress]:
        """The change of the prediction on the held-out calls, one candidate at a time in the
        teacher.
        """
        for number, call in enumerate(self.test):
            reference = self.scan.reference(call)
            for one, block in zip(wave, blocks, strict=True):
                changed = self.scan.span_prediction(
                    reference, block, one.stack, one.first, one.last
                )
                check_finite(changed, f"{one.target.label}, {edit}", call.timestep)
                change = relative_change(reference.prediction, changed)
                self.scores[number][one.key(edit)] = change.tolist()
            message = f"{edit}, {len(wave)} spans, timestep {call.timestep:.0f}"
            yield self.progress(message, timestep=call.timestep)

    @property
    def results(self) -> list[CallScores]:
        """The scores of each held-out call; zero-shot first, whatever the waves."""
        keys = [one.key(edit) for edit, one in product((BEFORE, AFTER), self.candidates)]
        results = []
        for number, call in enumerate(self.test):
            scores = {key: self.scores[number][key] for key in keys}
            results.append(CallScores(call.group, call.timestep, scores, call.prompts))
        return results

    def facts(self) -> dict[str, Any]:
        """What a map says of how it was measured; `shapes` is how each candidate started."""
        training = asdict(self.training)
        del training["room"]
        shapes = []
        for one in self.candidates:
            shape = {"stack": one.stack, "first": one.first, "last": one.last}
            shapes.append({**shape, "init": one.start.init, "gain": one.start.gain})
        return {
            "training": {**training, "optimizer": "muon"},
            "samples": samples([*self.learn, *self.test]),
            "held_out": samples(self.test),
            "shapes": shapes,
        }

    def progress(self, message: str, **metrics: float) -> Progress:
        self.step += 1
        return Progress(step=self.step, total=self.total, message=message, metrics=metrics)


# --- helpers --------------------------------------------------------------------------------------


def split(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """The calls to train on and to score on: the last quarter of the batches of prompts is held
    out. A batch that shares a prompt with them (another seed of it) is left out of both.

    Raises BadInput where nothing is left to train on.
    """
    groups = sorted({call.group for call in calls})
    held_out = groups[-max(1, len(groups) // HELD_OUT) :]
    test = [call for call in calls if call.group in held_out]
    tested = set(chain.from_iterable(call.prompts for call in test))
    learn = []
    for call in calls:
        if call.group not in held_out and tested.isdisjoint(call.prompts):
            learn.append(call)
    if not learn:
        raise BadInput(
            f"{len(groups)} batch of prompts to train on and to score on",
            "at least two with different prompts: the last quarter is held out",
            "give more prompts, or lower --batch",
        )
    return learn, test


def most_starts(wave: Sequence[Candidate]) -> int:
    return max(len(one.starts) for one in wave)


def finite_losses(trainees: Sequence[Trainee], step: int) -> list[float]:
    """The losses of one step. Raises BadInput where one is not finite."""
    losses = [trainee.loss for trainee in trainees if trainee.loss is not None]
    values: list[float] = torch.stack(losses).tolist()
    for trainee, value in zip(trainees, values, strict=True):
        if not math.isfinite(value):
            raise BadInput(
                f"loss {value:g} at step {step + 1} of training {trainee.candidate.target.label}",
                "finite losses",
                "profile in float32",
            )
    return values


def optimizer(block: nn.Module, row: StackRow, training: Training) -> Optimizers:
    """Muon for a block's matrices, AdamW for the rest; linear down to 0 after a short warm-up."""
    steps = training.steps
    return Optimizers(
        block.named_parameters(),
        "muon",
        training.lr,
        0.0,
        matrices=block_matrices(block, row),
        schedule=partial(lr_share, steps=steps, warmup=steps // 20, schedule="linear"),
    )


def room(scan: Scan, training: Training) -> int:
    """Bytes for the candidates that are trained at once."""
    if training.room is not None:
        return training.room
    device = scan.replay.device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return ROOM


def samples(calls: Sequence[Call]) -> int:
    """Different samples: those of one batch are counted once over its timesteps."""
    return sum({call.group: call.samples for call in calls}.values())
