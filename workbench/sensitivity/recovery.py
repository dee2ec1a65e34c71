"""Metric recovery: how far one block in place of several is from them, before and after a short
training.

What an edit costs before training does not say what training brings back (TinyFusion, arXiv
2412.01199). Puzzle (arXiv 2411.19146) measures it for language models: every candidate block learns
by itself on the teacher's states (blockwise local distillation), and is scored by how much the
whole model's output changes with this one replacement in it. Here a candidate replaces a run of
blocks first..last; it starts as plans make such blocks, from one of several inits and gains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import torch

from ..models.sampling import Call, placed
from ..records import Progress
from ..specs import ProfileSpec
from .recovery_estimate import recovery_estimate
from .recovery_training import Recovery, Training
from .results import Measurement, mean_rows, no_calls
from .scan import Scan
from .scan_settings import Setting


def training_of(spec: ProfileSpec) -> Training:
    """What `workbench profile` says about the training."""
    training = Training()
    if spec.train_steps is not None:
        training = replace(training, steps=spec.train_steps)
    if spec.longest is not None:
        training = replace(training, longest=spec.longest)
    return training


def measure(scan: Scan, calls: Iterator[Call], setting: Setting) -> Iterator[Progress]:
    """Record all calls first, then train and score the candidates; the last Progress has the
    Measurement.

    Rows: edits zero-shot and recovered of every span, with the relative squared change of the
    prediction on held-out prompts; higher = keep. Raises BadInput without two batches of different
    prompts, without two blocks that one could replace, and where a loss or prediction is not
    finite.
    """
    recorded: list[Call] = []
    cpu = torch.device("cpu")
    for call in calls:
        kept = placed(call.kwargs, cpu, scan.replay.dtype)
        recorded.append(replace(call, kwargs=kept))
        step = len(recorded)
        message = f"recorded timestep {call.timestep:.0f}"
        yield Progress(step=step, total=max(setting.total, step), message=message)
    if not recorded:
        raise no_calls()
    recovery = Recovery(scan, recorded, setting.options or Training())
    found = recovery_estimate(recovery, setting.sampling)
    metrics = {f"estimated_{name}": value for name, value in asdict(found).items()}
    yield Progress(step=0, total=recovery.total, message=found.sentence, metrics=metrics)
    before = scan.evaluations
    yield from recovery.run()
    evaluations = scan.evaluations - before
    yield Progress(
        step=recovery.step,
        total=recovery.total,
        result=Measurement(
            mean_rows(recovery.results),
            recovery.results,
            recovery.facts(),
            evaluations,
            evaluations,
            recovery.step,
        ),
    )
