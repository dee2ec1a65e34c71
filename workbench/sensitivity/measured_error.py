"""The error of a plan before any training, measured on the teacher's own trajectory: what the rules
greedy and search decide by.

error(plan) = mean over timesteps of (mean over samples of ||v - v_student||^2 / ||v||^2), v the
teacher's prediction: the score of metric `prediction`, of a whole plan instead of one edit; a
share, lower is better.

A student is evaluated without being built: the teacher's own forward runs, in which the first block
of each span does the span's work (`block_cache.block_for`) and the others pass their inputs on.
Students that begin alike share their beginnings: what every block of the settled plan returned is
kept, and replayed up to the first span that differs. Same numbers, less work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from .. import plans
from ..models.block_cache import block_for
from ..models.blocks import Place, State
from ..models.replay import Change, Replay
from ..models.sampling import Call
from ..records import BadInput, Plan, Span, Teacher
from .error import relative_change
from .results import no_calls

StudentBlocks = tuple[tuple[str, Span], ...]  # (stack, span) in the order in which they run
LEAST = 1e-30  # an error of 0 in a geometric mean


class PlanMeter:
    """Measures plans of one loaded teacher on recorded calls.

    Kept in memory, on the model's device: one prediction a call, and what each block of the settled
    plan returned. `weighting` of timesteps: uniform; high-noise, low-noise; points like
    `1000=1,0=0`; or normalised, their geometric mean, which no timestep dominates. Only calls of
    the conditional branch count. Raises BadInput where there is none, or where a prediction is not
    finite.
    """

    def __init__(
        self,
        transformer: nn.Module,
        teacher: Teacher,
        calls: Iterable[Call],
        *,
        weighting: str = "uniform",
    ) -> None:
        self.transformer = transformer
        self.teacher = teacher
        self.weighting = weighting
        self.replay = Replay(transformer)
        self.calls = [call for call in calls if call.branch == "cond"]
        if not self.calls:
            raise no_calls()
        plans.check_weighting(weighting)
        self.inputs = [self.replay.arguments(call) for call in self.calls]
        # Per call: what the first block of each span of the settled plan returned.
        self.states: list[dict[Place, State]] = [{} for _ in self.calls]
        self.settled: StudentBlocks = ()
        self.measured: dict[StudentBlocks, dict[float, float]] = {}
        # (B, ...) per call: the teacher's predictions
        self.references = self._settle(plans.identity(teacher))

    @property
    def evaluations(self) -> int:
        """Forwards of real blocks so far."""
        return self.replay.evaluations

    def error(self, plan: Plan) -> float:
        """Weighted over timesteps; 0 where the student predicts as the teacher. Lower is better."""
        errors = self.errors(plan)
        if self.weighting == "normalised":
            logs = [math.log(max(error, LEAST)) for error in errors.values()]
            return math.exp(sum(logs) / len(logs))
        weights = {time: plans.time_weight(time, self.weighting) for time in errors}
        total = sum(weights[time] * error for time, error in errors.items())
        return total / max(sum(weights.values()), 1e-9)

    def errors(self, plan: Plan) -> dict[float, float]:
        """Timestep -> relative squared error, mean over its samples."""
        key = self._student_blocks(plan)
        if key not in self.measured:
            self.measured[key] = self._measure(plans.check(plan, self.teacher))
        return self.measured[key]

    def settle(self, plan: Plan) -> None:
        """The next plans will be like this one: keep what its blocks return."""
        if self._student_blocks(plan) != self.settled:
            self._settle(plan)

    # --- inside ---------------------------------------------------------------------------------

    def _measure(self, plan: Plan) -> dict[float, float]:
        samples: dict[float, list[float]] = {}
        for number, call in enumerate(self.calls):
            changes = self._changes(number, plan)
            prediction = self.replay.prediction(self.inputs[number], changes)
            if not torch.isfinite(prediction).all():
                raise BadInput(
                    f"the prediction of a plan is not finite at timestep {call.timestep:.0f}",
                    "finite numbers",
                    "measure in bf16 or float32",
                )
            change = relative_change(self.references[number], prediction)
            samples.setdefault(call.timestep, []).extend(change.tolist())
        return {time: sum(values) / len(values) for time, values in samples.items()}

    def _settle(self, plan: Plan) -> list[torch.Tensor]:
        """Keep what the plan's blocks return; its predictions."""
        blocks = self._student_blocks(plan)
        places = [(path, span.first) for path, span in blocks]
        predictions = []
        for number, inputs in enumerate(self.inputs):
            changes = self._changes(number, plan)
            prediction, captured = self.replay.record(inputs, changes, places)
            self.states[number] = captured.outputs
            predictions.append(prediction)
        self.settled = blocks
        return predictions

    def _changes(self, number: int, plan: Plan) -> list[Change]:
        """Changes of the teacher's blocks with which it predicts as the plan's student."""
        blocks = self._student_blocks(plan)
        alike = common_start(blocks, self.settled)
        changes: list[Change] = []
        for index, (path, span) in enumerate(blocks):
            place = (path, span.first)
            if index < alike:
                changes.append(self.replay.replayed(place, self.states[number][place]))
            else:
                changes += self._student_block(place, span)
            for other in range(span.first + 1, span.last + 1):
                changes.append(self.replay.bypassed((path, other)))
        return changes

    def _student_block(self, place: Place, span: Span) -> list[Change]:
        block = block_for(self.transformer, place[0], span)
        if block is self.replay.blocks[place].module:
            return []
        return [self.replay.replaced(place, block)]

    def _student_blocks(self, plan: Plan) -> StudentBlocks:
        """The student's blocks, stack after stack in the order of the families table."""
        blocks: list[tuple[str, Span]] = []
        for path in dict.fromkeys(path for path, _ in self.replay.blocks):
            blocks += [(path, span) for span in plan.stacks[path]]
        return tuple(blocks)


def common_start(one: StudentBlocks, other: StudentBlocks) -> int:
    """How many blocks the two have in common at the beginning."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
