"""The error of a plan before any training, measured on the teacher's own trajectory: what greedy
and search decide by.

error(plan) = mean over timesteps of (mean over samples of ||v - v_student||^2 / ||v||^2), v the
teacher's prediction: the score of `workbench.sensitivity`, of a whole plan instead of one edit; a
share, lower is better.

A student is evaluated without being built: the teacher's own forward runs, in which the first block
of each span does the span's work (`standins.block_for`) and the others pass their inputs on.
Students that begin alike share their beginnings: what every block of the plan settled on returned
is kept, and replayed up to the first span that differs. Same numbers, less work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import Any

import torch
from torch import nn

from .. import plans
from ..models import Call, placed, prediction
from ..models.blocks import Forward, Place, all_blocks, as_output, bypassing, forwards, streams_out
from ..models.student_blocks import block_for
from ..records import BadInput, Plan, Span, Teacher

Made = tuple[tuple[str, Span], ...]  # a student's blocks in the order in which they run


class PlanMeter:
    """Measures plans of one loaded teacher on recorded calls.

    Kept in memory: one prediction a call, and what each block of the settled plan returned, on the
    device `keep` (else the model's). `weighting` of timesteps: uniform; high-noise, low-noise;
    points like `1000=1,0=0`; or normalised, their geometric mean, which no timestep dominates. Only
    calls of the conditional branch count. Raises BadInput where there is none, or where a
    prediction is not finite.
    """

    def __init__(
        self,
        transformer: nn.Module,
        teacher: Teacher,
        calls: Iterable[Call],
        *,
        weighting: str = "uniform",
        keep: torch.device | str | None = None,
    ) -> None:
        self.transformer, self.teacher, self.weighting = transformer, teacher, weighting
        weight = next(transformer.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.keep = torch.device(keep) if keep is not None else self.device
        self.blocks = {block.place: block for block in all_blocks(transformer)}
        self.calls = [call for call in calls if call.branch == "cond"]
        if not self.calls:
            raise BadInput(
                "no calls to measure on", "at least one prompt and timestep", "give prompts"
            )
        plans.check_weighting(weighting)
        self.inputs = [placed(call.kwargs, self.device, self.dtype) for call in self.calls]
        self.evaluations = 0  # forwards of real blocks
        self.base: Made = ()
        # per call: place -> what the settled plan's block returned
        self.states: list[dict[Place, Any]] = [{} for _ in self.calls]
        self.references: list[torch.Tensor] = []
        self.known: dict[str, dict[float, float]] = {}
        self._settle(plans.identity(teacher))

    def error(self, plan: Plan) -> float:
        """Weighted over timesteps; 0 where the student answers as the teacher."""
        errors = self.errors(plan)
        if self.weighting == "normalised":
            return math.exp(sum(math.log(max(e, 1e-30)) for e in errors.values()) / len(errors))
        weights = {t: plans.time_weight(t, self.weighting) for t in errors}
        return sum(weights[t] * e for t, e in errors.items()) / max(sum(weights.values()), 1e-9)

    def errors(self, plan: Plan) -> dict[float, float]:
        """Timestep -> relative squared error, mean over its samples."""
        key = str(_made(plan, self.blocks))
        if key not in self.known:
            plans.check(plan, self.teacher)
            samples: dict[float, list[float]] = {}
            for number, call in enumerate(self.calls):
                made = self._forward(number, plan)
                if not torch.isfinite(made).all():
                    raise BadInput(
                        f"the prediction of a plan is not finite at timestep {call.timestep:.0f}",
                        "finite numbers",
                        "measure in bf16 or float32",
                    )
                samples.setdefault(call.timestep, []).extend(
                    _relative(self.references[number], made)
                )
            self.known[key] = {time: sum(values) / len(values) for time, values in samples.items()}
        return self.known[key]

    def settle(self, plan: Plan) -> None:
        """The next plans will be like this one: keep what its blocks return."""
        if _made(plan, self.blocks) != self.base:
            self._settle(plan)

    def _settle(self, plan: Plan) -> None:
        for number in range(len(self.calls)):
            states: dict[Place, Any] = {}
            answer = self._forward(number, plan, states)
            self.states[number] = states
            if len(self.references) < len(self.calls):
                self.references.append(answer)
        self.base = _made(plan, self.blocks)

    @torch.no_grad()
    def _forward(
        self, number: int, plan: Plan, keep: dict[Place, Any] | None = None
    ) -> torch.Tensor:
        """One call's prediction by the plan's student; what its blocks return goes into `keep`."""
        made, held = _made(plan, self.blocks), self.states[number]
        alike = {
            (path, span.first)
            for (path, span), _ in takewhile(
                lambda pair: pair[0] == pair[1], zip(made, self.base, strict=False)
            )
        }
        changes: list[tuple[nn.Module, Callable[[Forward], Forward]]] = []
        for path, span in made:
            place = (path, span.first)
            work = self._replayed(place, held) if place in alike else self._worked(path, span)
            changes.append(
                (
                    self.blocks[place].module,
                    self._watched(place, work, keep) if keep is not None else work,
                )
            )
            changes += [
                (block.module, bypassing(block.row))
                for other in range(span.first + 1, span.last + 1)
                if (block := self.blocks[path, other])
            ]
        with forwards(changes):
            return prediction(self.transformer(**self.inputs[number]), self.transformer)

    def _replayed(self, place: Place, held: Mapping[Place, Any]) -> Callable[[Forward], Forward]:
        row = self.blocks[place].row
        state = {name: value.to(self.device) for name, value in held[place].items()}
        return lambda old: lambda *args, **kwargs: as_output(row, state)

    def _worked(self, path: str, span: Span) -> Callable[[Forward], Forward]:
        block = block_for(self.transformer, path, span)
        own = block is self.blocks[path, span.first].module

        def change(old: Forward) -> Forward:
            run = old if own else block.forward

            def new(*args: Any, **kwargs: Any) -> Any:
                self.evaluations += 1
                return run(*args, **kwargs)

            return new

        return change

    def _watched(
        self, place: Place, work: Callable[[Forward], Forward], keep: dict[Place, Any]
    ) -> Callable[[Forward], Forward]:
        row = self.blocks[place].row

        def change(old: Forward) -> Forward:
            run = work(old)

            def new(*args: Any, **kwargs: Any) -> Any:
                output = run(*args, **kwargs)
                keep[place] = {
                    name: value.to(self.keep) for name, value in streams_out(row, output).items()
                }
                return output

            return new

        return change


def _made(plan: Plan, blocks: Iterable[Place]) -> Made:
    """The student's blocks, stack after stack in the order of the families table."""
    return tuple(
        (path, span)
        for path in dict.fromkeys(path for path, _ in blocks)
        for span in plan.stacks[path]
    )


def _relative(reference: torch.Tensor, made: torch.Tensor) -> list[float]:
    """||v - v'||^2 / ||v||^2 per sample, in at least float32: (B, ...) -> B numbers."""
    exact = torch.promote_types(reference.dtype, torch.float32)
    v, other = reference.to(exact).flatten(1), made.to(exact).flatten(1)  # (B, N*D)
    return ((v - other).square().sum(1) / v.square().sum(1)).tolist()
