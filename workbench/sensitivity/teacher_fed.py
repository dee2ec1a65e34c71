"""Losses of candidate blocks on what the teacher feeds them (blockwise distillation)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from ..families import FAMILIES
from ..models.access import prediction
from ..models.blocks import State, streams_out
from ..models.precision import bfloat16_autocast, has_bfloat16
from ..models.replay import Arguments
from ..models.sampling import Call
from ..records import Loss
from ..training.batch_loss import matmul_attention
from ..training.builtin_losses import SpanStates, feature
from ..training.optim import Optimizers
from ..training.span_states import visit_spans
from ..training.targets import Target
from .candidates import Candidate
from .scan import Scan

LOSS = Loss(form="normalised")


@dataclass(frozen=True)
class Recorded:
    """A recorded call, to be run by `visit_spans`."""

    arguments: Arguments

    def predict(self, transformer: nn.Module, /) -> torch.Tensor:
        return prediction(transformer(**self.arguments), transformer)


@dataclass(eq=False)
class Trainee:
    """A candidate's block while its losses are measured or it is trained.

    loss: of the last call. total: the sum over calls.
    """

    candidate: Candidate
    block: nn.Module
    optimizer: Optimizers | None = None
    loss: torch.Tensor | None = None
    total: float = 0.0

    def add(self, loss: torch.Tensor) -> None:
        """Only measure."""
        self.total += float(loss)

    def learn(self, loss: torch.Tensor) -> None:
        """One optimizer step."""
        assert self.optimizer is not None
        loss.backward()
        self.optimizer.step()
        self.block.zero_grad(set_to_none=True)
        self.loss = loss.detach()


class TeacherFed:
    """Runs candidates on what their spans are given in a forward of the teacher."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        inputs = FAMILIES[scan.family].inputs
        # the argument with the text mask (true: a real token)
        self.mask = None if inputs is None else inputs.mask
        self.device = scan.replay.device.type
        # autocast leaves float64 alone
        self.narrow = scan.replay.dtype != torch.float64 and has_bfloat16(self.device)

    def run(
        self,
        call: Call,
        trainees: Sequence[Trainee],
        act: Callable[[Trainee, torch.Tensor], None],
        graph: bool = True,
    ) -> None:
        """One forward of the teacher. As soon as it has passed a span, the span's candidate runs on
        what the span was given, and `act` gets its loss: the normalised feature loss, mean over
        streams.

        graph: whether `act` needs gradients.
        """
        arguments = self.scan.replay.arguments(call)
        mask = self._text_mask(arguments)
        of_target = {trainee.candidate.target: trainee for trainee in trainees}

        def passed(target: Target, given: Arguments, goal: State) -> None:
            trainee = of_target[target]
            with torch.set_grad_enabled(graph):
                with self._student_context():
                    state = streams_out(trainee.candidate.row, trainee.block(**given))
                act(trainee, feature(SpanStates(state, goal, target.streams, mask), LOSS))

        with self._autocast():
            visit_spans(self.scan.transformer, Recorded(arguments), list(of_target), passed)
        self.scan.replay.evaluations += len(trainees) + self._blocks_run(trainees)

    def _text_mask(self, arguments: Arguments) -> torch.Tensor | None:
        mask = arguments.get(self.mask) if self.mask else None
        return None if mask is None else mask.bool()

    def _blocks_run(self, trainees: Sequence[Trainee]) -> int:
        """Block forwards of the teacher: up to the last span's end."""
        goals = {trainee.candidate.target.goal for trainee in trainees}
        return 1 + max(index for index, place in enumerate(self.scan.blocks) if place in goals)

    def _autocast(self, cache: bool = True) -> AbstractContextManager[object]:
        return bfloat16_autocast(self.device, self.narrow, cache)

    def _student_context(self) -> AbstractContextManager[object]:
        """As in distillation: each weight is used once, so that no cast of it is kept."""
        context = ExitStack()
        context.enter_context(self._autocast(cache=False))
        context.enter_context(matmul_attention(self.narrow and self.device == "cpu"))
        return context
