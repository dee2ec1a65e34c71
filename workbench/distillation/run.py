"""A run and where it stands: what a stage needs, one optimizer step of it, and what is told when a
loss is no number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..models import blocks_of
from ..models.blocks import capture
from ..records import BadInput, DistillSpec, Loss, Plan, Stage
from ..training import Batch, Drawing, Source, losses
from ..training.losses import Target
from ..training.optim import Average, Optimizers, lr_share
from .checkpoints import Checkpoints
from .lending import lend, take_back
from .parallel import ALONE, Processes, local
from .trained import Scores, parameter_scale, trained_blocks, trained_parameters

PROBE = 16  # samples on which the spans are measured before and after a stage
APART = 2**32  # what the seed of those samples differs by


@dataclass
class Run:
    """`begin` prepares a stage, `advance` is one optimizer step, `finish` ends a stage, `save` and
    `restore` are checkpoints.
    """

    student: nn.Module
    spec: DistillSpec
    source: Source
    teachers: dict[str, tuple[nn.Module, Plan]]
    scores: Scores | None
    checkpoints: Checkpoints
    key: str  # of spec and plan: a checkpoint of another run is refused
    sources: Mapping[str, Source] = field(default_factory=dict)
    processes: Processes = ALONE
    index: int = 0  # of the stage
    step: int = 0  # within the stage
    samples: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0  # of the loop's own thread: a busy machine stretches the others
    values: list[float] = field(default_factory=list)  # the stage's losses
    recovered: list[dict[str, Any]] = field(default_factory=list)
    # a checkpoint's optimizer and average, until `begin` takes them
    held: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.total = sum(stage.steps for stage in self.spec.stages)
        first = next(self.student.parameters())
        self.device, self.dtype = first.device, first.dtype

    @property
    def stage(self) -> Stage:
        return self.spec.stages[self.index]

    @property
    def done(self) -> int:
        return sum(stage.steps for stage in self.spec.stages[: self.index]) + self.step

    def begin(self) -> None:
        """Choose what trains in this stage and make its optimizer."""
        stage, (self.teacher, plan) = self.stage, self.teachers[self.stage.teacher]
        self._check(stage)
        self.data = self.sources[stage.data] if stage.data else self.source
        places = trained_blocks(self.student, plan, stage)
        scale = parameter_scale(plan, stage, places, self.scores)
        frozen = {prefix for prefix, factor in scale.items() if factor == 0}
        places = [(path, i) for path, i in places if f"{path}.{i}." not in frozen]
        self.params = trained_parameters(self.student, stage, places)
        if stage.steps and not self.params:
            raise BadInput(
                f"stage {stage.name!r} trains nothing (train: {stage.train})",
                "a plan that changes a block, or train: all",
                "remove the stage",
            )
        self.losses: dict[str, Loss] = {str(name): loss for name, loss in stage.losses.items()}
        self.wanted: list[Target] = (
            losses.targets(self.teacher, plan, stage, places) if "feature" in stage.losses else []
        )
        at_end = stage.model_copy(update={"target": "span-end"})
        self.probed = (
            losses.targets(self.teacher, plan, at_end, places)
            if {"feature", "output"} & set(stage.losses)
            else []
        )
        self.params = self.processes.train(self.student, self.params)
        if stage.gradient == "span" and stage.inputs == "teacher":
            lend(self.student, self.teacher, plan, self.params)
        factors = {
            name: next((f for prefix, f in scale.items() if name.startswith(prefix)), 1.0)
            for name in self.params
        }
        hidden = [f"{path}." for path in blocks_of(self.student)]
        self.optimizers = Optimizers(
            self.params.items(), stage.optimizer, stage.lr, stage.weight_decay, factors, hidden
        )
        self.average = Average(self.params.items(), stage.ema) if stage.ema else None
        if self.held:
            self.checkpoints.load_optimizers(self.optimizers, self.held["optimizers"])
            if self.average:
                self.checkpoints.load_average(
                    self.average, self.held["average"], self.held["average_steps"]
                )
            self.held = None
        else:
            self.recovered += [
                {
                    "stage": stage.name,
                    "stack": t.place[0],
                    "span": t.place[1],
                    "first": t.fed[1],
                    "last": t.goal[1],
                    "before": value,
                    "after": None,
                }
                for t, value in zip(self.probed, self._span_losses(), strict=True)
            ]

    def _check(self, stage: Stage) -> None:
        dtype = next(self.teacher.parameters()).dtype
        if stage.precision == "float32" and dtype != torch.float32:
            raise BadInput(
                f"stage {stage.name!r} computes in float32 and the teacher is in {dtype}",
                "one precision",
                "set precision: bfloat16, or load the teacher in float32",
            )
        if stage.data and stage.data not in self.sources:
            raise BadInput(
                f"stage {stage.name!r} wants data {stage.data}",
                "one of " + (", ".join(self.sources) or "no others"),
                "give its source",
            )
        if stage.batch < self.processes.world:
            raise BadInput(
                f"stage {stage.name!r} has a batch of {stage.batch}",
                f"at least the {self.processes.world} processes",
                "raise it, or lower accumulate",
            )

    def advance(self) -> dict[str, Any]:
        """One optimizer step; its metrics. A span's loss is named `loss/<stack>.<block>`."""
        stage, started, busy = self.stage, time.perf_counter(), time.thread_time()
        rows: list[tuple[dict[str, float], list[float]]] = []
        for i in range(stage.accumulate):
            rows.append(self._micro_batch(self.step * stage.accumulate + i))
            if not all(map(math.isfinite, (*rows[-1][0].values(), *rows[-1][1]))):
                break  # self.batch is the one to look into
        parts = {name: sum(row[0][name] for row in rows) / len(rows) for name in rows[0][0]}
        spans = [sum(row[1][i] for row in rows) / len(rows) for i in range(len(rows[0][1]))]
        loss = sum(value * self.losses[name].weight for name, value in parts.items())
        norm = self.processes.clip(list(self.params.values()), stage.clip or math.inf)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(loss, parts, spans)
        share = lr_share(self.step, stage.steps, stage.warmup, stage.schedule)
        self.optimizers.step(share)
        self.student.zero_grad(set_to_none=True)
        if self.average:
            self.average.update()
        took = time.perf_counter() - started
        self.processor_seconds += time.thread_time() - busy
        self.step, self.seconds, self.samples = (
            self.step + 1,
            self.seconds + took,
            self.samples + stage.batch * stage.accumulate,
        )
        self.values.append(loss)
        named = {
            f"loss/{t.place[0]}.{t.place[1]}": value
            for t, value in zip(self.wanted, spans, strict=True)
        }
        return {
            "stage": stage.name,
            "stage_step": self.step,
            "loss": loss,
            **parts,
            **named,
            "lr": stage.lr * share,
            "gradient_norm": norm,
            "samples_per_second": stage.batch * stage.accumulate / took,
        }

    def _batch(self, number: int, size: int, seed: int) -> Batch:
        how = Drawing(self.stage.timesteps, self.stage.guidance, self.processes.part)
        return self.data.batch(number, size, seed, how).to(self.device)

    def _micro_batch(self, number: int) -> tuple[dict[str, float], list[float]]:
        """Forward and backward of one batch: loss parts and span losses, of all processes together."""
        stage = self.stage
        self.batch = batch = self._batch(number, stage.batch, self.spec.seed + self.index)

        def backward(value: torch.Tensor) -> None:
            if value.requires_grad:
                (value / stage.accumulate).backward()

        add = self.processes.add
        if stage.gradient == "span":
            work = losses.BySpan(
                self.student,
                self.wanted,
                self.losses["feature"],
                backward,
                self._student_context,
                add,
            )
            with self._narrow():
                spans = self.processes.summed(
                    work(self.teacher, batch, feed=stage.inputs == "teacher")
                )
            return {"feature": sum(spans) / max(len(spans), 1)}, spans
        with self._narrow(), torch.no_grad():
            seen = losses.watch(self.teacher, batch, self.wanted, predict="output" in stage.losses)
            if seen.prediction is not None:
                seen.prediction = batch.guided(self.teacher, seen.prediction)
        with self._student_context():
            parts, spans = losses.end_to_end(
                self.student, batch, seen, self.wanted, self.losses, backward, add
            )
        totals = self.processes.summed([*parts.values(), *spans])
        return dict(zip(parts, totals, strict=False)), totals[len(parts) :]

    def _narrow(self) -> AbstractContextManager[Any]:
        """The stage's precision. One context a forward: autocast keeps the weights it cast, without
        a graph if made under no_grad.
        """
        return (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.stage.precision == "bfloat16"
            else nullcontext()
        )

    def _student_context(self) -> AbstractContextManager[Any]:
        """Of a forward with a graph. Inside the teacher's own context nothing is kept: each weight
        is used once.
        """
        context = ExitStack()
        narrow = self.stage.precision == "bfloat16"
        if narrow:
            context.enter_context(
                torch.autocast(
                    self.device.type, torch.bfloat16, cache_enabled=self.stage.gradient == "full"
                )
            )
        context.enter_context(losses.fast_attention(narrow and self.device.type == "cpu"))
        return context

    @torch.no_grad()
    def _span_losses(self) -> list[float]:
        """Each span's loss on teacher's states, normalised, over samples of their own: what
        training repairs, comparable between stages.
        """
        if not self.probed or not self.stage.steps:
            return [math.nan] * len(self.probed)
        batch = self._batch(
            0, max(min(PROBE, self.stage.batch), self.processes.world), self.spec.seed + APART
        )
        with self._narrow():
            work = losses.BySpan(
                self.student,
                self.probed,
                Loss(),
                lambda _: None,
                self._student_context,
                self.processes.add,
                graph=False,
            )
            return self.processes.summed(work(self.teacher, batch, feed=True))

    def finish(self) -> None:
        """End a stage: the average becomes the student, and its spans are measured again."""
        if self.average:
            self.average.swap()
        for target, value in zip(self.probed, self._span_losses(), strict=True):
            for row in self.recovered:
                if (row["stage"], row["stack"], row["span"]) == (self.stage.name, *target.place):
                    row["after"] = value
        take_back(self.student, self.dtype, [teacher for teacher, _ in self.teachers.values()])
        if self.index + 1 < len(self.spec.stages):
            self.index, self.step, self.values = self.index + 1, 0, []

    # --- what goes wrong, and what comes out

    def _refuse(self, loss: float, parts: Mapping[str, float], spans: Sequence[float]) -> None:
        bad = [
            target.label
            for target, value in zip(self.wanted, spans, strict=True)
            if not math.isfinite(value)
        ]
        where = (
            bad[0]
            if bad
            else self._culprit()
            or next((n for n, value in parts.items() if not math.isfinite(value)), "the gradient")
        )
        last = self.checkpoints.finished()[-1:]
        raise BadInput(
            f"stage {self.stage.name!r}: loss {loss:g} at step {self.step + 1}, first in {where}",
            "finite losses",
            f"lower lr ({self.stage.lr:g}) or check the data; last good checkpoint: "
            f"{last[0] if last else 'none'}",
        )

    def _culprit(self) -> str | None:
        """The first block whose states are not finite on the batch that failed, in any process's
        part of it; or else the parameter nearest to the loss whose gradient is not: from there it
        went on to those before it."""
        with torch.no_grad(), self._student_context(), capture(self.student) as held:
            self.batch.predict(self.student)
        bad = [
            number
            for number, place in enumerate(held.order)
            if not all(torch.isfinite(value).all() for value in held.outputs[place].values())
        ]
        first = self.processes.least(min(bad, default=math.inf))
        if first < math.inf:
            path, index = held.order[int(first)]
            return f"block {index} of {path}"
        bad = [
            number
            for number, p in enumerate(self.params.values())
            if p.grad is not None and not torch.isfinite(local(p.grad)).all()
        ]
        last = -self.processes.least(-max(bad, default=-math.inf))
        return f"the gradient of {list(self.params)[int(last)]}" if last >= 0 else None

    def summary(self) -> dict[str, Any]:
        """Figures of the whole run. Losses are those of the last stage."""
        first, last = self.values[:10], self.values[-10:]
        return {
            "steps": self.total,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "samples_per_second": self.samples / self.seconds if self.seconds else 0.0,
            "first_loss": sum(first) / len(first) if first else None,
            "last_loss": sum(last) / len(last) if last else None,
            "recoverability": [
                row
                for row in self.recovered
                if row["after"] is not None and math.isfinite(row["after"])
            ],
        }

    # --- checkpoints

    def save(self) -> None:
        about = {
            "key": self.key,
            "index": self.index,
            "step": self.step,
            "samples": self.samples,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "values": self.values,
            "recovered": self.recovered,
            "average_steps": self.average.steps if self.average else 0,
        }
        self.checkpoints.save(self.done, self.student, self.optimizers, self.average, about)

    def restore(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        found = self.checkpoints.restore(self.student, self.key)
        if found is not None:
            about, self.held = found
            self.index, self.step, self.samples, self.seconds = (
                about[k] for k in ("index", "step", "samples", "seconds")
            )
            self.values, self.recovered = about["values"], about["recovered"]
            self.processor_seconds = about.get("processor_seconds", 0.0)
