"""What a distillation was resolved to, in words for its log: models, data, devices, stages."""

from __future__ import annotations

from ..records.distillation import Loss, Stage
from .context import Context
from .distill_work import DistillWork


def run_in_words(work: DistillWork, context: Context) -> list[str]:
    """Lines about a distillation whose caches are filled and whose models are loaded."""
    line = work.line
    lines = [
        f"student: {line.student.folder}",
        f"teacher: {line.teacher.folder}",
        f"devices: {devices_in_words(work, context)}",
    ]
    if line.original:
        lines.insert(2, f"original teacher: {line.first_teacher.folder}")
    for name, source in work.sources.items():
        cached = work.sets.cached[name]
        of = f" of {name}" if name is not None else ""
        lines.append(f"data{of}: {cached.data} ({cached.kind}), {len(source)} samples")
    lines += [stage_in_words(stage) for stage in work.stages.stages]
    lines.append(f"writes: {work.out}")
    return lines


def devices_in_words(work: DistillWork, context: Context) -> str:
    """How many processes on which device."""
    count = work.spec.processes
    if count == 1:
        return context.device
    return f"{count} processes on {context.device}"


def stage_in_words(stage: Stage) -> str:
    """A stage's steps, losses, what trains, and how."""
    losses = " + ".join(loss_in_words(name, loss) for name, loss in stage.losses.items())
    train = stage.train if isinstance(stage.train, str) else "listed blocks"
    batch = f"{stage.batch}"
    if stage.accumulate > 1:
        batch = f"{stage.accumulate} x {stage.batch}"
    parts = [
        f"stage {stage.name!r}: {stage.steps} steps of batch {batch}",
        f"losses {losses}",
        f"trains {train}",
        f"gradient {stage.gradient}",
        f"inputs of the {stage.inputs}",
        f"{stage.optimizer} {stage.lr:g} {stage.schedule}",
        stage.precision,
    ]
    return ", ".join(parts)


def loss_in_words(name: str, loss: Loss) -> str:
    """A term with its weight, where that is not 1."""
    return name if loss.weight == 1 else f"{loss.weight:g} {name}"
