"""What a stage needs while it runs: what trains, on which targets, with which optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..models import family_of
from ..models.streaming import is_streamed
from ..records import BadInput, Plan, Stage
from ..training.batch import Batch, Drawing
from ..training.batch_loss import StageTerms
from ..training.batch_source import Source
from ..training.forward_order import parameters_in_order
from ..training.loss_table import check_losses
from ..training.model_inputs import check_branches
from ..training.muon import matrices_of
from ..training.optim import Average, Optimizers, check_states, lr_share
from ..training.targets import Target, targets
from .frozen_blocks import borrow_from_teacher
from .processes import Processes
from .student_memory import StudentMemory
from .trainable import Scores, parameter_factors, trained_blocks, trained_parameters

Teachers = Mapping[
    str, tuple[nn.Module, Plan]
]  # by Stage.teacher: model, the student's plan over it


@dataclass
class StageWork:
    """A stage that is under way."""

    stage: Stage
    teacher: nn.Module
    plan: Plan
    source: Source
    seed: int
    terms: StageTerms
    params: dict[str, nn.Parameter]  # those that train
    targets: list[Target]  # of the feature loss
    probes: list[Target]  # spans that are measured before and after
    optimizers: Optimizers
    average: Average | None
    processes: Processes
    device: torch.device

    @property
    def learns_from_teacher(self) -> bool:
        """Whether a loss compares with the teacher; the task loss does not."""
        return bool(self.terms.spans) or self.terms.need_teacher

    def batch(
        self, number: int, size: int, seed: int | None = None, *, both_branches: bool = False
    ) -> Batch:
        """This process's part of batch `number`, on the device. both_branches: with the empty
        prompts too, also where the stage does not supervise them.
        """
        how = Drawing(
            self.stage.timesteps,
            self.stage.guidance,
            self.processes.part,
            both_branches or self.stage.branches == "both",
        )
        chosen = self.seed if seed is None else seed
        return self.source.batch(number, size, chosen, how).to(self.device)

    def branches(self, batch: Batch) -> list[Batch]:
        """The branches of a batch that the stage supervises, as batches of their own."""
        if self.stage.branches == "conditional":
            return [batch]
        return [batch, batch.without_prompts]


@dataclass(frozen=True)
class Trainees:
    """The run's part of a stage's preparation: what there is to train, by whom, on what."""

    student: nn.Module
    teachers: Teachers
    sources: Mapping[str | None, Source]  # None: the run's own
    scores: Scores | None
    processes: Processes
    memory: StudentMemory
    device: torch.device


def prepare(
    stage: Stage, who: Trainees, seed: int, at_step: int = 0, *, narrow: bool = False
) -> StageWork:
    """Choose what trains in a stage and make its optimizer. Raises BadInput for what cannot run.

    narrow: whether it computes in bfloat16.
    """
    teacher, plan = who.teachers[stage.teacher]
    student = who.student
    source = check(stage, teacher, who)
    places = trained_blocks(student, plan, stage)
    by_block = parameter_factors(plan, stage, places, who.scores)
    places = [(path, i) for path, i in places if by_block.get(f"{path}.{i}.") != 0]
    device = who.device
    order: list[str] = []
    if stage.train == "after-first-cut":
        if not who.processes.sharded:
            who.memory.arrange((), runs_whole=True)
        smallest = source.batch(0, who.processes.world, seed, Drawing(part=who.processes.part))
        order = parameters_in_order(student, smallest.to(device))
    params = trained_parameters(student, stage, places, order)
    if stage.steps and not params:
        raise BadInput(
            f"stage {stage.name!r} trains nothing (train: {stage.train})",
            "a plan that changes a block, or train: all",
            "remove the stage",
        )
    params = who.processes.train(student, params)
    lay_out(stage, who, params, narrow)
    terms = StageTerms.of(stage)
    at_end = stage.model_copy(update={"target": "span-end"})
    learns_states = terms.spans or terms.need_teacher
    return StageWork(
        stage,
        teacher,
        plan,
        source,
        seed,
        terms,
        params,
        targets(teacher, plan, stage, places) if terms.spans else [],
        targets(teacher, plan, at_end, places) if learns_states else [],
        optimizers_of(stage, who, params, by_block, at_step),
        Average(params.items(), stage.ema) if stage.ema else None,
        who.processes,
        device,
    )


def lay_out(stage: Stage, who: Trainees, params: Mapping[str, nn.Parameter], narrow: bool) -> None:
    """Bring what trains to the device; make room of what does not."""
    teacher, plan = who.teachers[stage.teacher]
    alone = stage.gradient == "span" and stage.inputs == "teacher"
    lent: list[str] = []
    if alone and not is_streamed(teacher):
        lent = borrow_from_teacher(who.student, teacher, plan, params)
    if not who.processes.sharded:
        who.memory.arrange(params, runs_whole=not alone, narrow=narrow, lent=lent)


def optimizers_of(
    stage: Stage,
    who: Trainees,
    params: Mapping[str, nn.Parameter],
    by_block: Mapping[str, float],
    at_step: int,
) -> Optimizers:
    """by_block: prefix of a block's parameters -> factor on their steps."""
    factors: dict[str, float] = {}
    for prefix, factor in by_block.items():
        factors |= {name: factor for name in params if name.startswith(prefix)}
    return Optimizers(
        params.items(),
        stage.optimizer,
        stage.lr,
        stage.weight_decay,
        betas=stage.betas,
        matrices=matrices_of(who.student),
        factors=factors,
        schedule=partial(lr_share, steps=stage.steps, warmup=stage.warmup, schedule=stage.schedule),
        at_step=at_step,
        states=stage.optimizer_states,
        host=who.memory.host,
    )


def check(stage: Stage, teacher: nn.Module, who: Trainees) -> Source:
    """The stage's source of samples. Raises BadInput for what cannot run."""
    check_losses(stage)
    check_branches(stage, family_of(teacher).name)
    dtype = next(teacher.parameters()).dtype
    if stage.precision == "float32" and dtype != torch.float32:
        raise BadInput(
            f"stage {stage.name!r} computes in float32 and the teacher is in {dtype}",
            "one precision",
            "set precision: bfloat16, or load the teacher in float32",
        )
    if stage.data and stage.data not in who.sources:
        others = [name for name in who.sources if name is not None]
        raise BadInput(
            f"stage {stage.name!r}: data {stage.data}",
            "one of " + ", ".join(others) if others else "no data of its own",
            "give its source",
        )
    if stage.batch < who.processes.world:
        raise BadInput(
            f"stage {stage.name!r} has a batch of {stage.batch}",
            f"at least the {who.processes.world} processes",
            "raise it, or lower accumulate",
        )
    check_states(stage.name, stage.optimizer_states, shard=who.processes.sharded)
    source = who.sources[stage.data or None]
    if stage.branches == "both" and not source.two_branches:
        raise BadInput(
            f"stage {stage.name!r}: branches both, and data without the empty prompt",
            "a latent cache with it",
            "encode again",
        )
    return source
