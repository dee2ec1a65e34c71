"""The kind that trains: distill. It finds the teachers from the student's card, fills the data cache, and drives the loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .. import models, plans
from ..data import Source
from ..distill import distill as train
from ..records import BadInput, Card, DistillSpec, Plan, Progress, SensitivityMap
from . import Context
from .data import content, sources
from .locate import bundled, locate, sampling
from .teachers import bundled_map, describe

PROBE = 3  # optimizer steps that are timed to know how long a run takes


@dataclass
class Lineage:
    """A student folder and the teachers behind it."""

    path: Path
    card: Card
    plan: Plan
    teacher: Path
    original: tuple[Path, Plan] | None  # where it is not the direct teacher


def lineage(source: str, context: Context) -> Lineage:
    """Read a student's card and find its teachers. Raises BadInput where they are not what they were."""
    path, _ = locate(source, context.store)
    if not (path / "card.json").is_file():
        raise BadInput(f"{path} has no card.json", "a student folder that `workbench build` wrote", "build one from a plan")
    card = Card.load(path / "card.json")
    teacher = described(card.teacher, card.teacher_fingerprint, context)
    original = None
    if card.original != card.teacher and card.original_plan is not None:
        first = described(card.original, card.original_fingerprint, context)
        original = (first, Plan.parse(card.original_plan, f"original_plan of {path}"))
    return Lineage(path, card, Plan.parse(card.plan, f"plan of {path}"), teacher, original)


def described(name: str, fingerprint: str, context: Context) -> Path:
    path, _ = locate(name, context.store)
    found = describe(name, context.store).fingerprint
    if fingerprint and found != fingerprint:
        raise BadInput(f"teacher {name} is {found}", f"{fingerprint}, the one this student was built from", "build the student again")
    return path


def distill(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: student, recipe | spec, steps (of training), minutes, data, size and sampling_steps (of latents sampled from prompts),
    sensitivity, resume, estimate, checkpoint_every, out."""
    line = lineage(spec["student"], context)
    wanted = with_steps(spec_of(spec), spec.get("steps"))
    for data in (spec.get("data"), *(stage.data for stage in wanted.stages)):
        content(data)  # refuse bad data before the models are loaded
    scores = scores_for(wanted, spec, line, context)
    out = Path(spec.get("out") or context.store.out("student", f"{line.path.name}-{wanted.name}")).absolute()
    check_out(out, line.path)
    yield Progress(step=0, total=1, message="loading teacher and student")
    source, teacher = None, None
    for progress in prepared(spec, wanted, line, context):
        if progress.result is None:
            yield progress
        else:
            found, teacher = progress.result
            source = found[None]
    if source is None or teacher is None:
        return  # told to stop
    student = models.load_transformer(line.path, device=context.device)
    original = (models.load_transformer(line.original[0], device=context.device), line.original[1]) if line.original else None
    checkpoints = out.with_name(f"{out.name}.checkpoints")
    resume = context.resume and (checkpoints / "spec.yaml").exists()
    if spec.get("minutes") is not None or spec.get("estimate"):
        if resume:
            wanted = DistillSpec.load(checkpoints / "spec.yaml")
        else:
            yield Progress(step=0, total=1, message="timing a few steps")
            pace = seconds_per_step(student, teacher, line.plan, wanted, source, scores, original)
            if spec.get("minutes") is not None:
                wanted = fitted(wanted, pace, 60 * float(spec["minutes"]))
            if spec.get("estimate"):
                yield Progress(step=1, total=1, result=estimate(wanted, pace, student, teacher, original))
                return
    others = {name: found[name] for name in found if name is not None}
    run = train(student, teacher, line.plan, wanted, source, sources=others, out=out, base=line.path, resume=resume, stop=context.stop,
                scores=scores, original=original, checkpoint_every=float(spec.get("checkpoint_every") or 60))
    yield from watched(run, wanted, checkpoints, out, context)


def watched(run: Iterator[Progress], wanted: DistillSpec, checkpoints: Path, out: Path, context: Context) -> Iterator[Progress]:
    """Pass the loop's progress on; keep its spec with the checkpoints; index the student it writes."""
    for progress in run:
        if isinstance(progress.result, dict) and progress.result.get("stopped"):
            return
        if progress.result is None and not (checkpoints / "spec.yaml").exists():
            wanted.save(checkpoints / "spec.yaml")
        if progress.result is not None:
            context.store.add("student", out)
        yield progress


def spec_of(spec: dict[str, Any]) -> DistillSpec:
    """The distillation spec: a file, a recipe's, or the recipe `workbench`."""
    if spec.get("spec") and spec.get("recipe"):
        raise BadInput("both --recipe and --spec", "one of them", "leave one out")
    if isinstance(spec.get("spec"), dict):
        return DistillSpec.parse(spec["spec"], "spec")
    if spec.get("spec"):
        return DistillSpec.load(spec["spec"])
    from ..rules import recipes

    return recipes.load(spec.get("recipe") or "workbench").distill


def with_steps(wanted: DistillSpec, steps: int | None) -> DistillSpec:
    """The same stages with `steps` steps in all, shared as before; the last stage takes what rounding leaves."""
    total = sum(stage.steps for stage in wanted.stages)
    if steps is None or steps == total:
        return wanted
    shares = [round(steps * stage.steps / total) if total else 0 for stage in wanted.stages]
    shares[-1] += steps - sum(shares)
    stages = [stage.model_copy(update={"steps": n, "warmup": min(stage.warmup, n // 5)})
              for stage, n in zip(wanted.stages, shares, strict=True)]
    return wanted.model_copy(update={"stages": stages})


def scores_for(wanted: DistillSpec, spec: dict[str, Any], line: Lineage, context: Context) -> dict[tuple[str, int], float] | None:
    """Sensitivity per teacher block, for stages that scale by it: the given map, the plan's, the newest, the bundled one."""
    given = spec.get("sensitivity")
    if given is None and all(stage.scale == "none" for stage in wanted.stages):
        return None
    known = context.store.find("map", given or line.card.sensitivity or "")
    newest = context.store.maps(line.card.teacher_fingerprint)
    if given and (known is None or Path(given).exists()):
        found: SensitivityMap | None = SensitivityMap.load(given)
    elif known or newest:
        found = SensitivityMap.load((known or newest[0])["path"])
    else:
        found = bundled_map(describe(line.card.teacher, context.store))
    return plans.block_scores(found) if found else None


def check_out(out: Path, student: Path) -> None:
    if out.resolve() == student.resolve():
        raise BadInput(f"-o {out} is the student itself", "another folder", "choose another -o")
    if out.exists() and not (out / "card.json").is_file():
        raise BadInput(f"{out} exists and is no student (no card.json)", "a new folder or a student to replace", "choose another -o")


def prepared(spec: dict[str, Any], wanted: DistillSpec, line: Lineage, context: Context) -> Iterator[Progress]:
    """Load the teacher and fill the data caches; the last Progress carries (sources by name, teacher's transformer)."""
    origin = line.original[0] if line.original else line.teacher  # the original's VAE and text encoder are the student's too
    demo = bundled(line.path, line.card.original)
    how = sampling(line.path, line.card.original, {"size": spec.get("size"), "steps": spec.get("sampling_steps")})
    pipe = models.load_pipeline(origin, device=context.device)
    names = [None, *dict.fromkeys(stage.data for stage in wanted.stages if stage.data)]
    for progress in sources(pipe, spec, names, how, line.card.original_fingerprint, demo, context.store.workspace, context.stop):
        if progress.result is None:
            yield progress
            continue
        teacher = pipe.transformer if line.original is None else models.load_transformer(line.teacher, device=context.device)
        yield Progress(step=1, total=1, result=(progress.result, teacher))


# --- time and memory -----------------------------------------------------------------------------------------------


def seconds_per_step(student: nn.Module, teacher: nn.Module, plan: Plan, wanted: DistillSpec, source: Source, scores: Any,
                     original: Any) -> list[float]:
    """Seconds of an optimizer step of each stage, on copies of the student; the first step, which warms up, is left out."""
    paces = []
    for stage in wanted.stages:
        probe = wanted.model_copy(update={"stages": [stage.model_copy(update={"steps": PROBE, "warmup": 0})]})
        times = [time.perf_counter()]
        for _ in train(copy.deepcopy(student), teacher, plan, probe, source, scores=scores, original=original):
            times.append(time.perf_counter())
        paces.append((times[PROBE] - times[1]) / (PROBE - 1))
    return paces


def fitted(wanted: DistillSpec, paces: list[float], seconds: float) -> DistillSpec:
    """As many steps as fit the time, each stage keeping its share of it; a tenth is left for checkpoints and writing."""
    weights = [max(stage.steps, 1) * pace for stage, pace in zip(wanted.stages, paces, strict=True)]
    factor = 0.9 * seconds / sum(weights)
    counts = [max(1, int(max(stage.steps, 1) * factor)) for stage in wanted.stages]
    stages = [s.model_copy(update={"steps": n, "warmup": min(s.warmup, n // 5)}) for s, n in zip(wanted.stages, counts, strict=True)]
    return wanted.model_copy(update={"stages": stages})


def estimate(wanted: DistillSpec, paces: list[float], student: nn.Module, teacher: nn.Module, original: Any) -> dict[str, Any]:
    """What a run would take, from timed steps; memory of weights, gradients and optimizer, activations not counted."""
    weights = sum(p.numel() for p in student.parameters())
    others = sum(p.nbytes for model in (teacher, *(original or ())[:1]) for p in model.parameters())
    return {"steps": sum(s.steps for s in wanted.stages), "seconds": sum(s.steps * p for s, p in zip(wanted.stages, paces, strict=True)),
            "seconds_per_step": paces, "parameters": weights, "bytes": others + 16 * weights,
            "stages": [{"name": s.name, "steps": s.steps, "seconds": s.steps * p} for s, p in zip(wanted.stages, paces, strict=True)]}
