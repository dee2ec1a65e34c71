"""Recoverability: how far one block in place of several is from them, before and after a short
training.

What an edit costs before training does not tell what training brings back (TinyFusion, arXiv
2412.01199). The way to measure it is Puzzle's for language models (arXiv 2411.19146): every
candidate block learns by itself on the teacher's states (blockwise local distillation), and is
scored by how much the whole model's answer changes with this one replacement in it. Here a
candidate stands for a run of blocks first..last; it starts as plans make such blocks, from one of
several inits and gains.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..families import StackRow
from ..models import Call, family_of, placed, prediction
from ..models import student_blocks as standins
from ..models.blocks import State, all_blocks, streams_out
from ..records import BadInput, Init, Loss, Progress, Span
from ..training import INPUTS, losses
from ..training.losses import Arguments, Target
from ..training.optim import Optimizers, lr_share
from .estimate import estimate
from .scan import Scan, Scores, not_finite, relative_change, shapes
from .stability import Result

BEFORE, AFTER = "zero-shot", "recovered"
INITS: tuple[Init, ...] = ("first", "mean")
ROOM = 4 * 2**30  # bytes of candidates trained at once on a CPU; on a GPU half of what is free
LOSS = Loss(form="normalised")


@dataclass(frozen=True)
class Training:
    """How candidates are trained: `steps` of one recorded call each, Muon, linear down to 0.
    `longest`: blocks of a span at most.
    """

    steps: int = 60
    longest: int = 4
    lr: float = 1.5e-3
    seed: int = 0
    room: int | None = None  # bytes for the candidates that are trained at once


@dataclass(frozen=True)
class Recorded:
    """A recorded call, to be run by `losses.watch`."""

    kwargs: dict[str, Any]

    def predict(self, transformer: nn.Module, /) -> torch.Tensor:
        return prediction(transformer(**self.kwargs), transformer)


@dataclass
class Candidate:
    """One block that could stand for blocks first..last of a stack."""

    target: Target
    row: StackRow
    spans: list[Span]  # how it could start
    parameters: int
    span: Span = field(init=False)  # how it does

    def __post_init__(self) -> None:
        self.span = self.spans[0]

    @property
    def path(self) -> str:
        return self.target.place[0]

    @property
    def first(self) -> int:
        return self.target.fed[1]

    @property
    def last(self) -> int:
        return self.target.goal[1]

    def key(self, edit: str) -> str:
        """Its name among the scores."""
        return f"{self.path} {self.first}-{self.last} {edit}"

    @property
    def bytes(self) -> int:
        """While it is trained: weights and momentum in float32."""
        return 8 * self.parameters


def candidates(scan: Scan, longest: int) -> list[Candidate]:
    """Every run of 2..`longest` blocks of one shape without a pinned block, in the order of the
    model.
    """
    found = []
    blocks = all_blocks(scan.transformer)
    for path in dict.fromkeys(block.place[0] for block in blocks):
        stack = [block for block in blocks if block.place[0] == path]
        row, pinned, made = (
            stack[0].row,
            stack[0].row.pinned_in(len(stack)),
            [shapes(block.module) for block in stack],
        )
        for first in range(len(stack)):
            for last in range(first + 1, min(first + longest, len(stack))):
                if made[last] != made[first] or set(range(first, last + 1)) & pinned:
                    break
                target = Target(
                    (path, first),
                    (path, first),
                    (path, last),
                    losses.streams_read(row, last, len(stack)),
                    f"one block for {first}-{last} of {path}",
                )
                gains = (
                    (1.0, float(last - first + 1)) if scan.blocks[path, first].row.gain else (1.0,)
                )
                spans = [
                    Span(blocks=(first, last), init=init, gain=gain)
                    for init in INITS
                    for gain in gains
                ]
                found.append(
                    Candidate(
                        target, row, spans, sum(p.numel() for p in stack[first].module.parameters())
                    )
                )
    if not found:
        raise BadInput(
            "no two neighbouring blocks that one block could stand for",
            "blocks of one shape that are not pinned",
            "choose another metric",
        )
    return found


class Recovery:
    """Chooses, trains and scores the candidates on the recorded calls; the last quarter of the
    batches of prompts is held out.
    """

    def __init__(self, scan: Scan, calls: Sequence[Call], how: Training) -> None:
        self.scan, self.how = scan, how
        self.candidates = candidates(scan, how.longest)
        groups = sorted({call.group for call in calls})
        if len(groups) < 2:
            raise BadInput(
                f"{len(groups)} batch of prompts to train and to score on",
                "at least two: the last quarter is held out",
                "give more prompts, or lower --batch",
            )
        held_out = set(groups[-max(1, len(groups) // 4) :])
        self.learn = [call for call in calls if call.group not in held_out]
        self.test = [call for call in calls if call.group in held_out]
        self.waves = waves(self.candidates, room(scan, how))
        self.scores: dict[tuple[int, float], Scores] = {}
        self.step = 0
        family = family_of(scan.transformer).name
        self.mask = INPUTS[family].mask if family in INPUTS else None
        self.narrow = scan.dtype != torch.float64  # autocast leaves float64 alone

    @property
    def total(self) -> int:
        """Steps of the progress: one a call on which starts are compared or candidates scored, one
        an optimizer step.
        """
        starts = sum(max(len(c.spans) for c in wave) for wave in self.waves) * len(self.first_group)
        return starts + len(self.waves) * (2 * len(self.test) + self.how.steps)

    @property
    def first_group(self) -> list[Call]:
        """The calls on which starts are compared: the first batch of prompts at every timestep."""
        return [call for call in self.learn if call.group == self.learn[0].group]

    def work(self) -> Iterator[Progress]:
        for wave in self.waves:
            yield from self.choose(wave)
            yield from self.score(wave, [self.made(c, c.span) for c in wave], BEFORE)
            blocks = [
                self.made(c, c.span, torch.promote_types(self.scan.dtype, torch.float32))
                for c in wave
            ]
            yield from self.train(wave, blocks)
            yield from self.score(
                wave, [block.to(self.scan.dtype).requires_grad_(False) for block in blocks], AFTER
            )

    def made(self, candidate: Candidate, span: Span, dtype: torch.dtype | None = None) -> nn.Module:
        """A block of its own, as `span` makes it. Never while the model runs: a copy would keep the
        swapped forward.
        """
        block = copy.deepcopy(standins.block_for(self.scan.transformer, candidate.path, span))
        if not self.scan.keep:
            standins.forget(self.scan.transformer)
        return block.to(dtype or self.scan.dtype)

    # --- how each starts

    def choose(self, wave: Sequence[Candidate]) -> Iterator[Progress]:
        """Give each candidate the init and gain with the least loss before training."""
        found: dict[tuple[Target, int], float] = {}
        for number in range(max(len(c.spans) for c in wave)):
            able = [c for c in wave if number < len(c.spans)]
            blocks = {c.target: (c, self.made(c, c.spans[number])) for c in able}
            for call in self.first_group:

                def add(target: Target, value: torch.Tensor, number: int = number) -> None:
                    found[target, number] = found.get((target, number), 0.0) + float(value)

                self.run(call, blocks, add, graph=False)
                yield self.told(
                    f"starts, {number + 1} of {len(wave[0].spans)}, timestep {call.timestep:.0f}"
                )
        for c in wave:
            values = [found[c.target, number] for number in range(len(c.spans))]
            c.span = c.spans[
                min(
                    range(len(values)),
                    key=lambda n: values[n] if math.isfinite(values[n]) else math.inf,
                )
            ]

    # --- training

    def train(self, wave: Sequence[Candidate], blocks: Sequence[nn.Module]) -> Iterator[Progress]:
        """Each candidate on its own: forward, backward and step, before the next one's forward."""
        how, work = (
            self.how,
            {
                c.target: (c, block.requires_grad_(True))
                for c, block in zip(wave, blocks, strict=True)
            },
        )
        optimizers = {c.target: optimizer(block, how) for c, block in work.values()}
        for step, call in enumerate(self.drawn()):
            values: dict[Target, torch.Tensor] = {}

            def learn(
                target: Target,
                value: torch.Tensor,
                step: int = step,
                values: dict[Target, torch.Tensor] = values,
            ) -> None:
                value.backward()
                optimizers[target].step(lr_share(step, how.steps, how.steps // 20, "linear"))
                work[target][1].zero_grad(set_to_none=True)
                values[target] = value.detach()

            self.run(call, work, learn)
            told = torch.stack(list(values.values())).tolist()
            for target, value in zip(values, told, strict=True):
                if not math.isfinite(value):
                    raise BadInput(
                        f"loss {value:g} at step {step + 1} of training {target.label}",
                        "finite losses",
                        "profile in float32",
                    )
            yield self.told(
                f"training {len(wave)} blocks, step {step + 1}", loss=sum(told) / len(told)
            )

    def drawn(self) -> Iterator[Call]:
        """The calls to train on: all of them in random order, then again."""
        generator = torch.Generator().manual_seed(self.how.seed)
        order: list[int] = []
        for _ in range(self.how.steps):
            order = order or torch.randperm(len(self.learn), generator=generator).tolist()
            yield self.learn[order.pop()]

    def run(
        self,
        call: Call,
        blocks: Mapping[Target, tuple[Candidate, nn.Module]],
        act: Callable[[Target, torch.Tensor], None],
        graph: bool = True,
    ) -> None:
        """One forward of the teacher; as soon as it has passed a span, its candidate runs on what
        the span was given: its loss.
        """
        kwargs = placed(call.kwargs, self.scan.device, self.scan.dtype)
        mask = kwargs.get(self.mask) if self.mask else None

        def each(target: Target, arguments: Arguments, goal: State) -> None:
            candidate, block = blocks[target]
            with torch.set_grad_enabled(graph):
                with self.student_context():
                    state = streams_out(candidate.row, block(**arguments))
                act(
                    target,
                    losses.feature(
                        state, goal, target, LOSS, None if mask is None else mask.bool()
                    ),
                )
            self.scan.evaluations += 1

        with self.autocast():
            losses.watch(self.scan.transformer, Recorded(kwargs), list(blocks), each=each)
        self.scan.evaluations += 1 + max(
            index
            for index, place in enumerate(self.scan.blocks)
            if place in {t.goal for t in blocks}
        )

    def autocast(self, **how: Any) -> AbstractContextManager[Any]:
        return torch.autocast(self.scan.device.type, torch.bfloat16, enabled=self.narrow, **how)

    def student_context(self) -> AbstractContextManager[Any]:
        """As distillation's stages do it: each weight is used once, so no cast is kept."""
        context = ExitStack()
        context.enter_context(self.autocast(cache_enabled=False))
        context.enter_context(losses.fast_attention(self.narrow and self.scan.device.type == "cpu"))
        return context

    # --- scores

    def score(
        self, wave: Sequence[Candidate], blocks: Sequence[nn.Module], edit: str
    ) -> Iterator[Progress]:
        """The change of the prediction on the held-out calls, one candidate at a time in the
        teacher.
        """
        for call in self.test:
            kwargs, reference, held = self.scan.reference(call)
            scores = self.scores.setdefault((call.group, call.timestep), {})
            for c, block in zip(wave, blocks, strict=True):
                changed = self.scan.standing_in(block, c.path, c.first, c.last, kwargs, held)
                if not torch.isfinite(changed).all():
                    raise not_finite(f"{c.target.label}, {edit}", call)
                scores[c.key(edit)] = relative_change(reference, changed).tolist()
            yield self.told(
                f"{edit}, {len(wave)} spans, timestep {call.timestep:.0f}", timestep=call.timestep
            )

    @property
    def results(self) -> list[Result]:
        """Per held-out call: scores under the keys "stack first-last edit"; zero-shot first,
        whatever the waves.
        """
        keys = [c.key(edit) for edit in (BEFORE, AFTER) for c in self.candidates]
        return [
            (group, timestep, {key: scores[key] for key in keys})
            for (group, timestep), scores in self.scores.items()
        ]

    def measured(self) -> dict[str, Any]:
        """What a map says of how it came about; `shapes` is how each candidate started."""
        how = {name: value for name, value in vars(self.how).items() if name != "room"}
        return {
            "training": {**how, "optimizer": "muon"},
            "samples": samples([*self.learn, *self.test]),
            "held_out": samples(self.test),
            "shapes": [
                {
                    "stack": c.path,
                    "first": c.first,
                    "last": c.last,
                    "init": c.span.init,
                    "gain": c.span.gain,
                }
                for c in self.candidates
            ],
        }

    def told(self, message: str, **metrics: Any) -> Progress:
        self.step += 1
        return Progress(step=self.step, total=self.total, message=message, metrics=metrics)

    # --- what it will take

    def estimate(self, sampling: int) -> dict[str, Any]:
        """As `estimate` of a scan; a candidate's training step is timed apart, on the first one."""
        depth, waves, steps = len(self.scan.blocks), len(self.waves), self.how.steps
        order = {place: index for index, place in enumerate(self.scan.blocks)}
        rest = sum(depth - order[c.target.place] - (c.last - c.first) for c in self.candidates)
        starts = sum(len(c.spans) for c in self.candidates) * len(self.first_group)
        teacher = waves * depth * (steps + 2 * len(self.test) + 4 * len(self.first_group))
        found = estimate(
            self.scan,
            self.learn[0],
            1,
            evaluations=teacher + starts + 2 * rest * len(self.test),
            sampling=sampling,
        )
        trained = steps * len(self.candidates)
        held = max(sum(c.bytes for c in wave) for wave in self.waves) + 4 * max(
            c.parameters for c in self.candidates
        )
        return {
            **found,
            "seconds": found["seconds"] + trained * self.timed(),
            "memory_bytes": found["memory_bytes"] + held,
            "block_evaluations": found["block_evaluations"] + trained,
            "calls": len(self.learn) + len(self.test),
            "waves": waves,
        }

    def timed(self) -> float:
        """Seconds of a candidate's step, its share of the teacher's forward included."""
        first = self.candidates[0]
        work = {
            first.target: (first, self.made(first, first.span, torch.float32).requires_grad_(True))
        }
        steps = optimizer(work[first.target][1], self.how)

        def learn(target: Target, value: torch.Tensor) -> None:
            value.backward()
            steps.step(0.0)

        took = []
        for _ in range(3):
            began = time.perf_counter()
            self.run(self.learn[0], work, learn)
            if self.scan.device.type == "cuda":
                torch.cuda.synchronize(self.scan.device)
            took.append(time.perf_counter() - began)
        return min(took)


def optimizer(block: nn.Module, how: Training) -> Optimizers:
    """Muon for a block's matrices, AdamW for the rest."""
    return Optimizers(block.named_parameters(), "muon", how.lr, 0.0, hidden=[""])


def room(scan: Scan, how: Training) -> int:
    """Bytes for the candidates that are trained at once."""
    if how.room is not None:
        return how.room
    return torch.cuda.mem_get_info(scan.device)[0] // 2 if scan.device.type == "cuda" else ROOM


def waves(found: Sequence[Candidate], bytes_at_once: int) -> list[list[Candidate]]:
    """Candidates in their order, as many at once as have room; one at least."""
    out: list[list[Candidate]] = []
    for c in found:
        if not out or sum(other.bytes for other in [*out[-1], c]) > bytes_at_once:
            out.append([])
        out[-1].append(c)
    return out


def samples(calls: Sequence[Call]) -> int:
    return sum({call.group: call.samples for call in calls}.values())
