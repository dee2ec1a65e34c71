"""What a scan takes on devices that are not here: its own forwards on a model without memory.

The unedited model runs once, and the edits of the first and of the last blocks; an edit's work
shrinks evenly with its block's number. Nothing is loaded, and no formula says what a block needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..distillation.dry_run import FakeSource
from ..distillation.made_up_source import made_up_source
from ..models import Call, config_of
from ..models.fake_models import FakeRun
from ..models.memory_use import MemoryUse
from ..plans import Tokens
from ..records import Teacher
from ..sensitivity.edits import Edit, parse_edits
from ..sensitivity.error import relative_change
from ..sensitivity.scan import TOGETHER, Reference, Scan
from ..specs.teacher_weights import AS_LOADED

MIDDLE = 500.0  # a timestep; what a forward takes does not depend on it


@dataclass(frozen=True)
class ScanUse:
    """What one call of a scan takes. bytes, kinds: at the peak, of the transformer and what it
    computes. flops: of a forward and of all edits.
    """

    bytes: int
    kinds: dict[str, int]
    forward_flops: int
    edits_flops: int


def dry_scan(
    teacher: Teacher,
    edits: Sequence[str],
    tokens: Tokens,
    samples: int,
    *,
    streamed: bool = False,
    weights: str = AS_LOADED,
    on_gpu: bool = True,
) -> ScanUse:
    """One call of a scan (metric prediction) without memory. samples: in one forward."""
    run = FakeRun(on_gpu=on_gpu)
    dtype = getattr(torch, teacher.dtype)
    config = {"_class_name": teacher.class_name, **teacher.config}
    if streamed or weights != AS_LOADED:
        model = run.streamed_model(config, dtype, "teacher", weights)
        run.follow_threads(model)
    else:
        model = run.model(config, dtype, "teacher")
    source = FakeSource(made_up_source(teacher.family, config_of(model), tokens), run)
    batch = source.batch(0, samples, 0)
    with run.running() as memory:
        memory.name_model(model, "teacher")
        call = Call(batch.arguments(), MIDDLE, 0, samples, "cond")
        return scan_use(model, parse_edits(edits, teacher), call, memory)


def scan_use(model: nn.Module, edits: Sequence[Edit], call: Call, memory: MemoryUse) -> ScanUse:
    """To be called inside `memory`."""
    scan = Scan(model, edits)
    memory.take_peak_anew()
    memory.flops = 0
    reference = scan.reference(call)
    forward = memory.flops
    total = 0.0
    for edit in edits:
        places = scan.places(edit)
        together = min(max(1, TOGETHER // len(edits)) if scan.streamed else 1, len(places))
        ends = 0
        for group in (places[:together], places[-together:]):
            memory.flops = 0
            changes_of(scan, reference, [(edit, place) for place in group])
            ends += memory.flops
        total += len(places) * ends / (2 * together)
    kinds = {kind: size for kind, size in memory.at_peak.items() if size}
    return ScanUse(memory.peak, kinds, forward, round(total))


def changes_of(scan: Scan, reference: Reference, pairs: list[Any]) -> None:
    """What the metric does with these edits."""
    for _, _, changed in scan.edited_predictions(reference, pairs):
        relative_change(reference.prediction, changed)
