"""A stage's fit: the output projections of changed student blocks, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from .. import models
from ..models.blocks import State, block_at
from ..records import BadInput, Stage
from ..training.batch import Batch, Drawing
from ..training.span_states import Arguments, visit_spans
from ..training.targets import Target, targets
from .projection_fit import Example, ProjectionFit
from .stage_work import Trainees, check
from .trainable import trained_blocks

SAMPLES = 256  # at least; of the stage's data, none that it trains on
SEED = 2**33  # added to the run's seed for those samples


def fit_stage(
    stage: Stage, who: Trainees, seed: int, context: Callable[[], AbstractContextManager[Any]]
) -> Iterator[str]:
    """Fit every block that the stage trains and the plan changed, in place; yields a line for each.

    One span at a time: its states of all samples are in memory, taken from one forward of the
    teacher up to the span's end per batch. context: of that forward (the stage's precision); the
    fit is in float32, its sums in float64. Raises BadInput for what cannot be fitted.
    """
    if stage.fit == "none":
        return
    teacher, plan = who.teachers[stage.teacher]
    source = check(stage, teacher, who)
    if who.processes.sharded:
        raise BadInput(
            f"stage {stage.name!r}: fit of a student that is split between processes",
            "a student that is whole in each",
            "leave --shard out, or fit in a run of its own",
        )
    places = []
    for path, index in trained_blocks(who.student, plan, stage):
        if not plan.stacks[path][index].plain:
            places.append((path, index))
    at_end = stage.model_copy(update={"target": "span-end"})
    how = Drawing(stage.timesteps, part=who.processes.part)
    chosen = targets(teacher, plan, at_end, places)
    who.memory.release()  # of the stage before: what it fetches is not what is fitted
    for number, target in enumerate(chosen, 1):
        examples: list[Example] = []
        for step in range(-(-SAMPLES // stage.batch)):
            batch = source.batch(step, stage.batch, seed + SEED, how).to(who.device)
            with context():
                visit_spans(teacher, batch, [target], partial(keep_example, examples, batch))
        block = block_at(who.student, target.place)
        who.memory.bring(block.module)
        fit = ProjectionFit(block, target.streams, examples, add=who.processes.add)
        before, after = fit.run()
        who.memory.send(block.module)
        yield (
            f"fit of block {target.place[1]} of {target.place[0]} ({number} of {len(chosen)}): "
            f"mean squared error {before:.3g}, {after:.3g} after"
        )


def keep_example(
    examples: list[Example], batch: Batch, target: Target, arguments: Arguments, goal: State
) -> None:
    """Called where the teacher leaves a span."""
    device = batch.clean.device
    in_float32 = models.placed(arguments, device, torch.float32)
    examples.append(Example(in_float32, goal, batch.text_mask))
