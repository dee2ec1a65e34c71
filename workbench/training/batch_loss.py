"""Where a batch becomes a loss: block by block (`BlockwiseLoss`), or end to end (`end_to_end`).

Which terms there are: `loss_table.py`. What they compute: `builtin_losses.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..models.blocks import Block, Place, State, all_blocks, capture, streams_out
from ..plugins import registry
from ..records import Loss, Stage
from .batch import Batch
from .builtin_losses import Predictions, SpanStates, SumOverProcesses, reduced
from .loss_table import LossTerm
from .span_states import Arguments, Observation, observe, visit_spans
from .targets import Target

Backward = Callable[[torch.Tensor], None]


@dataclass(frozen=True)
class WeightedTerm:
    """A loss term as a stage names it."""

    name: str
    row: LossTerm
    loss: Loss


@dataclass(frozen=True)
class StageTerms:
    """The terms of a stage's loss."""

    spans: tuple[WeightedTerm, ...]  # compare the states of student blocks
    predictions: tuple[WeightedTerm, ...]  # compare the predictions of whole models

    @classmethod
    def of(cls, stage: Stage) -> StageTerms:
        """Look the stage's losses up. Raises BadInput for one that is not in the table."""
        table = registry("loss")
        terms = [WeightedTerm(name, table[name], loss) for name, loss in stage.losses.items()]
        return cls(
            tuple(term for term in terms if term.row.reads == "spans"),
            tuple(term for term in terms if term.row.reads == "prediction"),
        )

    @property
    def need_teacher(self) -> bool:
        """Whether the teacher's prediction is needed."""
        return any(term.row.teacher for term in self.predictions)


@dataclass(frozen=True)
class LossValues:
    """The values of one batch, unweighted."""

    parts: dict[str, float]  # by term
    spans: dict[str, list[float]]  # by term of spans: one value per target

    @property
    def numbers(self) -> list[float]:
        """All of them."""
        return [*self.parts.values(), *chain.from_iterable(self.spans.values())]

    def changed(self, change: Callable[[list[float]], list[float]]) -> LossValues:
        """The same with all numbers passed through `change` together."""
        numbers = iter(change(self.numbers))
        parts = {name: next(numbers) for name in self.parts}
        spans = {}
        for name, values in self.spans.items():
            spans[name] = [next(numbers) for _ in values]
        return LossValues(parts, spans)


@dataclass
class BlockwiseLoss:
    """Trains single student blocks: each forward with its backward, one span in memory at a time.

    The blocks are fed by the teacher (teacher-fed) or by the student's own forward; no gradient
    passes between them. backward: called once per span with its share of the stage's loss.
    context: of a block's forward (precision, attention). graph: False only measures.
    """

    student: nn.Module
    targets: Sequence[Target]
    terms: Sequence[WeightedTerm]
    backward: Backward
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    add: SumOverProcesses | None = None
    graph: bool = True

    def __post_init__(self) -> None:
        self.blocks = {block.place: block for block in all_blocks(self.student)}

    def run(self, teacher: nn.Module, batch: Batch, *, teacher_fed: bool) -> LossValues:
        """One forward of the teacher and, unless it feeds the blocks, one of the student."""
        values: dict[Place, list[float]] = {}

        def visit_teacher(target: Target, arguments: Arguments, goal: State) -> None:
            values[target.place] = self._train(target, arguments, goal, batch)

        if teacher_fed:
            visit_spans(teacher, batch, self.targets, visit_teacher)
        else:
            self._run_on_own_states(teacher, batch, visit_teacher)
        parts = {}
        spans = {}
        for number, term in enumerate(self.terms):
            each = [values[target.place][number] for target in self.targets]
            mean = sum(each) / max(len(each), 1)
            parts[term.name] = sum(each) if term.loss.reduction == "sum" else mean
            spans[term.name] = each
        return LossValues(parts, spans)

    def _run_on_own_states(
        self,
        teacher: nn.Module,
        batch: Batch,
        train: Callable[[Target, Arguments, State], None],
    ) -> None:
        """Feed each block what the student's own forward feeds it."""
        observation = observe(teacher, batch, self.targets)
        originals = {target.place: target for target in self.targets}

        def visit(own: Target, arguments: Arguments, state: State) -> None:
            target = originals[own.place]
            train(target, arguments, observation.states[target.goal])

        in_student = [replace(t, fed=t.place, goal=t.place) for t in self.targets]
        visit_spans(self.student, batch, in_student, visit)

    def _train(
        self, target: Target, arguments: Arguments, goal: State, batch: Batch
    ) -> list[float]:
        """Forward and backward of one block; its value of each term."""
        block: Block = self.blocks[target.place]
        with torch.set_grad_enabled(self.graph):
            with self.context():
                state = streams_out(block.row, block.module(**arguments))
                states = SpanStates(state, goal, target.streams, batch.text_mask, self.add)
                values = [term.row.compute(states, term.loss) for term in self.terms]
            if self.graph:
                shares = [self._share(t, v) for t, v in zip(self.terms, values, strict=True)]
                self.backward(torch.stack(shares).sum())
        return [float(value.detach()) for value in values]

    def _share(self, term: WeightedTerm, value: torch.Tensor) -> torch.Tensor:
        """What one span's value adds to the stage's loss."""
        if term.loss.reduction == "sum":
            return value * term.loss.weight
        return value * (term.loss.weight / len(self.targets))


def end_to_end(
    student: nn.Module,
    batch: Batch,
    observation: Observation,
    targets: Sequence[Target],
    terms: StageTerms,
    backward: Backward,
    add: SumOverProcesses | None = None,
) -> LossValues:
    """Run the student on its own states and hand the stage's weighted loss to `backward`.

    observation: the teacher's states after the targets' goals, and its prediction where needed.
    """
    places = [target.place for target in targets] if terms.spans else []
    with capture(student, places, detach=False) as captured:
        prediction = batch.predict(student)
    spans: dict[str, list[torch.Tensor]] = {term.name: [] for term in terms.spans}
    for target in targets if terms.spans else []:
        goal = observation.states[target.goal]
        state = captured.outputs[target.place]
        states = SpanStates(state, goal, target.streams, batch.text_mask, add)
        for term in terms.spans:
            spans[term.name].append(term.row.compute(states, term.loss))
    parts = {term.name: reduced(spans[term.name], term.loss) for term in terms.spans}
    predictions = Predictions(prediction, observation.prediction, batch.velocity, add)
    for term in terms.predictions:
        parts[term.name] = term.row.compute(predictions, term.loss)
    weights = {term.name: term.loss.weight for term in (*terms.spans, *terms.predictions)}
    backward(torch.stack([value * weights[name] for name, value in parts.items()]).sum())
    return LossValues(
        {name: float(value.detach()) for name, value in parts.items()},
        {name: as_floats(values) for name, values in spans.items()},
    )


def as_floats(values: Sequence[torch.Tensor]) -> list[float]:
    return [float(value.detach()) for value in values]


def matmul_attention(on: bool) -> AbstractContextManager[Any]:
    """Attention by plain matrix products, where `on`.

    In bfloat16 on a CPU its backward is faster than the fused one's: a whole step took 30 % less.
    """
    return sdpa_kernel(SDPBackend.MATH) if on else nullcontext()
