"""Where a loss stopped being finite: which span, block, gradient or term it was first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..models.blocks import State, capture
from ..training.batch import Batch
from ..training.batch_loss import LossValues
from ..training.targets import Target
from .processes import Processes, local


@dataclass(frozen=True)
class FailedStep:
    """What a step had that failed."""

    student: nn.Module
    batch: Batch
    targets: Sequence[Target]
    params: Mapping[str, nn.Parameter]  # with their gradients
    processes: Processes
    context: Callable[[], AbstractContextManager[Any]]  # of a student's forward

    def first_place(self, values: LossValues) -> str:
        """The span, block, gradient or loss term that was first not finite, in words."""
        for spans in values.spans.values():
            for target, value in zip(self.targets, spans, strict=True):
                if not math.isfinite(value):
                    return target.label
        bad = [name for name, value in values.parts.items() if not math.isfinite(value)]
        term = bad[0] if bad else "the gradient"
        return self._first_block() or self._nearest_gradient() or term

    def _first_block(self) -> str:
        """The first block whose states are not finite on the batch, in any process; or nothing."""
        with torch.no_grad(), self.context(), capture(self.student) as captured:
            self.batch.predict(self.student)
        number = math.inf
        for i, place in enumerate(captured.order):
            if not is_finite(captured.outputs[place]):
                number = i
                break
        first = self.processes.least(number)
        if first == math.inf:
            return ""
        path, index = captured.order[int(first)]
        return f"block {index} of {path}"

    def _nearest_gradient(self) -> str:
        """The parameter nearest to the loss whose gradient is not finite; or nothing.

        From there it went on to those before it.
        """
        number = -math.inf
        for i, p in enumerate(self.params.values()):
            if p.grad is not None and not bool(torch.isfinite(local(p.grad)).all()):
                number = i
        last = -self.processes.least(-number)
        return f"the gradient of {list(self.params)[int(last)]}" if last >= 0 else ""


def is_finite(state: State) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in state.values())
