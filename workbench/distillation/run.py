"""A run and where it stands: stages, one optimizer step, and the summary at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ..models.host_memory import Host
from ..models.precision import bfloat16_autocast, has_bfloat16
from ..records import BadInput, DistillSpec, Loss, Stage
from ..training.batch import Batch
from ..training.batch_loss import (
    BlockwiseLoss,
    LossValues,
    WeightedTerm,
    end_to_end,
    matmul_attention,
)
from ..training.batch_source import Source
from ..training.builtin_losses import FEATURE
from ..training.span_states import observe
from .checkpoints import Checkpoints, Position, Saved
from .frozen_blocks import own_tensors
from .gap_curve import GapCurve, can_measure
from .non_finite import FailedStep
from .processes import ALONE, Processes
from .projection_stage import fit_stage
from .stage_work import StageWork, Teachers, Trainees, prepare
from .student_memory import StudentMemory
from .trainable import Scores

PROBE = 16  # samples on which the spans are measured before and after a stage
PROBE_SEED = 2**32  # added to the run's seed for those samples: none that is trained on
MEAN_OF = 10  # steps whose losses make first_loss and last_loss
PROBE_TERM = WeightedTerm("feature", FEATURE, Loss())


@dataclass
class SpanRecovery:
    """A span's feature loss on the teacher's states before and after a stage."""

    stage: str
    stack: str
    span: int  # number of the student block
    first: int  # teacher blocks
    last: int
    before: float
    after: float | None = None


class Run:
    """`begin` prepares a stage, `advance` is one optimizer step, `finish` ends a stage, `save` and
    `restore` are checkpoints.

    key: names spec and plan; a checkpoint of another run is refused. host: where blocks wait that a
    stage does not run; None: beside the teacher's device.
    """

    def __init__(
        self,
        student: nn.Module,
        spec: DistillSpec,
        source: Source,
        teachers: Teachers,
        scores: Scores | None,
        checkpoints: Checkpoints,
        key: str,
        sources: Mapping[str, Source] | None = None,
        processes: Processes = ALONE,
        host: Host | None = None,
    ) -> None:
        self.student = student
        self.spec = spec
        self.checkpoints = checkpoints
        self.key = key
        self.processes = processes
        all_sources: dict[str | None, Source] = {None: source}
        all_sources.update(sources or {})
        self.device = next(teachers["parent"][0].parameters()).device
        self.host = host or Host(self.device)
        memory = StudentMemory(student, self.host)
        self.trainees = Trainees(
            student, teachers, all_sources, scores, processes, memory, self.device
        )
        self.at = Position()
        self.saved: Saved | None = None  # of a checkpoint, until `begin` takes it

    @property
    def stage(self) -> Stage:
        return self.spec.stages[self.at.index]

    @property
    def done(self) -> int:
        """Steps of the whole run so far."""
        return sum(stage.steps for stage in self.spec.stages[: self.at.index]) + self.at.step

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return self.work.optimizers.all

    # --- a stage ----------------------------------------------------------------------------------

    def fit(self) -> Iterator[str]:
        """The stage's fit, before `begin`; a line for each block. A checkpoint has it already."""
        if self.saved is None:
            yield from fit_stage(self.stage, self.trainees, self._seed, self._precision)

    def begin(self) -> None:
        """Prepare the stage: what trains, its optimizer, and how far off its spans are now."""
        self.work: StageWork = prepare(
            self.stage, self.trainees, self._seed, self.at.step, narrow=self._narrow
        )
        self.gaps: GapCurve | None = None
        if can_measure(self.work):
            self.gaps = GapCurve(self.work, self.spec.seed + PROBE_SEED, self._precision)
        if self.saved is not None:
            self._take_up(self.saved)
            return
        for target, loss in zip(self.work.probes, self._probe(), strict=True):
            path, index = target.place
            row = SpanRecovery(
                self.stage.name, path, index, target.fed[1], target.goal[1], before=loss
            )
            self.at.recovery.append(asdict(row))

    def _take_up(self, saved: Saved) -> None:
        """Optimizer and average as a checkpoint has them."""
        self.checkpoints.load_optimizers(self.work.optimizers, saved.moments)
        if self.work.average and saved.average is not None:
            self.checkpoints.load_average(self.work.average, saved.average, saved.average_steps)
        self.saved = None

    def finish(self) -> None:
        """End a stage: the average becomes the student, and its spans are measured again."""
        if self.work.average:
            self.work.average.swap()
        if self.gaps is not None:
            self.at.gap = self.gaps.measure(self.student)
        for target, loss in zip(self.work.probes, self._probe(), strict=True):
            place = (self.stage.name, *target.place)
            for row in self.at.recovery:
                if (row["stage"], row["stack"], row["span"]) == place:
                    row["after"] = loss
        teachers = [teacher for teacher, _ in self.trainees.teachers.values()]
        own_tensors(self.student, self.host, teachers)
        if self.at.index + 1 < len(self.spec.stages):
            self.at.index += 1
            self.at.step = 0
            self.at.values = []

    @property
    def _seed(self) -> int:
        return self.spec.stage_seed(self.at.index)

    # --- a step -----------------------------------------------------------------------------------

    def advance(self) -> dict[str, Any]:
        """One optimizer step; its metrics. A span's loss is named `loss/<stack>.<block>`.

        Raises BadInput where loss or gradient are not finite.
        """
        started = time.perf_counter()
        processor = time.thread_time()
        values = self._accumulate()
        stage = self.stage
        loss = sum(value * stage.losses[name].weight for name, value in values.parts.items())
        params = list(self.work.params.values())
        norm = self.processes.clip(params, stage.clip or math.inf)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._refuse(loss, values)
        lr = self.work.optimizers.lr
        self.work.optimizers.step()
        self.student.zero_grad(set_to_none=True)
        if self.work.average:
            self.work.average.update()
        seconds = time.perf_counter() - started
        samples = stage.batch * stage.accumulate
        self.at.processor_seconds += time.thread_time() - processor
        self.at.seconds += seconds
        self.at.samples += samples
        self.at.step += 1
        self.at.values.append(loss)
        gap = {}
        if self.gaps is not None and self.gaps.is_due(self.at.step):
            gap = self.gaps.measure(self.student)
        return {
            "stage": stage.name,
            "stage_step": self.at.step,
            "loss": loss,
            **values.parts,
            **gap,
            **self._by_span(values),
            "lr": lr,
            "gradient_norm": norm,
            "samples_per_second": samples / seconds,
        }

    def _refuse(self, loss: float, values: LossValues) -> BadInput:
        finished = self.checkpoints.finished()
        failed = FailedStep(
            self.student,
            self.batch,
            self.work.targets,
            self.work.params,
            self.processes,
            self.student_context,
        )
        return BadInput(
            f"stage {self.stage.name!r}: loss {loss:g} at step {self.at.step + 1}, "
            f"first in {failed.first_place(values)}",
            "finite losses",
            f"lower lr ({self.stage.lr:g}) or check the data; last good checkpoint: "
            f"{finished[-1] if finished else 'none'}",
        )

    def _by_span(self, values: LossValues) -> dict[str, float]:
        """The first term of spans, by the metrics' names."""
        metrics = {}
        for spans in list(values.spans.values())[:1]:
            for target, value in zip(self.work.targets, spans, strict=True):
                metrics[f"loss/{target.place[0]}.{target.place[1]}"] = value
        return metrics

    def _accumulate(self) -> LossValues:
        """Gradients and mean values of the step's batches; ends at one that is not finite."""
        rows: list[list[float]] = []
        for batch in self._micro_batches():
            self.batch = batch
            values = self._forward_and_backward()
            rows.append(values.numbers)
            if not all(map(math.isfinite, rows[-1])):
                break  # self.batch is the one to look into
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return values.changed(lambda numbers: means)

    def _micro_batches(self) -> Iterator[Batch]:
        """The step's batches, each branch by itself: one branch's activations in memory at a time."""
        count = self.stage.accumulate
        for i in range(count):
            batch = self.work.batch(self.at.step * count + i, self.stage.batch)
            yield from self.work.branches(batch)

    def _forward_and_backward(self) -> LossValues:
        """Of self.batch; its values, of all processes together."""
        values = self._blockwise() if self.stage.gradient == "span" else self._end_to_end()
        return values.changed(self.processes.summed)

    def _blockwise(self) -> LossValues:
        work = BlockwiseLoss(
            self.student,
            self.work.targets,
            self.work.terms.spans,
            self._backward,
            self.student_context,
            self.processes.add,
        )
        with self._precision():
            return work.run(
                self.work.teacher, self.batch, teacher_fed=self.stage.inputs == "teacher"
            )

    def _end_to_end(self) -> LossValues:
        work = self.work
        with self._precision(), torch.no_grad():
            seen = observe(work.teacher, self.batch, work.targets, predict=work.terms.need_teacher)
            if seen.prediction is not None:
                seen.prediction = self.batch.guided(work.teacher, seen.prediction)
        with self.student_context():
            return end_to_end(
                self.student,
                self.batch,
                seen,
                work.targets,
                work.terms,
                self._backward,
                self.processes.add,
            )

    def _backward(self, loss: torch.Tensor) -> None:
        if loss.requires_grad:
            (loss / (self.stage.accumulate * self.stage.passes)).backward()

    def _precision(self) -> AbstractContextManager[Any]:
        """The stage's precision. One context per forward: autocast keeps the weights it cast,
        without a graph if that was under no_grad.
        """
        return bfloat16_autocast(self.device.type, self.stage.precision == "bfloat16")

    @property
    def _narrow(self) -> bool:
        """Whether the student computes in bfloat16."""
        return self.stage.precision == "bfloat16" and has_bfloat16(self.device.type)

    def student_context(self) -> AbstractContextManager[Any]:
        """Of a student's forward with a graph. Inside the teacher's own context nothing is kept:
        each weight is used once.
        """
        context = ExitStack()
        device = self.device.type
        narrow = self._narrow
        keep_casts = self.stage.gradient == "full"
        context.enter_context(bfloat16_autocast(device, narrow, keep_casts))
        context.enter_context(matmul_attention(narrow and device == "cpu"))
        return context

    @torch.no_grad()
    def _probe(self) -> list[float]:
        """Each span's loss on the teacher's states, normalised, over samples of their own.

        What training recovers, comparable between stages; lower = nearer to the teacher.
        """
        probes = self.work.probes
        if not probes or not self.stage.steps:
            return [math.nan] * len(probes)
        size = max(min(PROBE, self.stage.batch), self.processes.world)
        batch = self.work.batch(0, size, self.spec.seed + PROBE_SEED)
        measure = BlockwiseLoss(
            self.student,
            probes,
            [PROBE_TERM],
            self._backward,
            self.student_context,
            self.processes.add,
            graph=False,
        )
        with self._precision():
            values = measure.run(self.work.teacher, batch, teacher_fed=True)
        return values.changed(self.processes.summed).spans["feature"]

    # --- the whole run ----------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Figures of the whole run. Losses are those of the last stage."""
        recovery = []
        for row in self.at.recovery:
            if row["after"] is not None and math.isfinite(row["after"]):
                recovery.append(row)
        seconds = self.at.seconds
        return {
            "steps": self.spec.steps,
            "seconds": seconds,
            "processor_seconds": self.at.processor_seconds,
            "samples_per_second": self.at.samples / seconds if seconds else 0.0,
            "first_loss": mean(self.at.values[:MEAN_OF]),
            "last_loss": mean(self.at.values[-MEAN_OF:]),
            "recoverability": recovery,
            "guidance_gap": self.at.gap.get("guidance_gap"),
            "guidance_gap_cosine": self.at.gap.get("guidance_gap_cosine"),
        }

    def save(self) -> None:
        """Write a checkpoint."""
        work = self.work
        self.checkpoints.save(
            self.done, self.key, self.at, self.student, work.optimizers, work.average
        )

    def restore(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        self.saved = self.checkpoints.restore(self.student, self.key)
        if self.saved is not None:
            self.at = self.saved.position


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
