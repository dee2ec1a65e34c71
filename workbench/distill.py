"""Distilling a student: stages of losses, as one generator that the job, the notebook and the test drive alike.

What a stage does follows from its fields, not from its name: gradient `span` is block-wise and teacher-fed, `full` runs the
student end to end on its own states with output, feature and task losses (DESIGN section 6).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from . import checkpoints, losses
from .blocks import Place
from .data import Source
from .losses import Target
from .models import blocks_of, transformer_folder
from .optim import Average, Optimizers, block_scale, lr_share
from .records import BadInput, Card, DistillSpec, Loss, Plan, Progress, Stage, write_atomic

KEPT = 2  # checkpoints
Scores = Mapping[Place, float]  # (stack, teacher block) -> sensitivity, higher = keep; see plans.block_scores


def distill(student: nn.Module, teacher: nn.Module, plan: Plan, spec: DistillSpec, source: Source, *, out: Path | str | None = None,
            base: Path | str | None = None, checkpoint_folder: Path | str | None = None, resume: bool = False,
            checkpoint_every: float = 120.0, stop: Callable[[], bool] = lambda: False, scores: Scores | None = None,
            original: tuple[nn.Module, Plan] | None = None, gradient_checkpointing: bool = False) -> Iterator[Progress]:
    """Train `student` in place, stage after stage; a Progress per step, the result in the last one.

    plan: spans of `teacher` (the direct parent). original: the first teacher of the chain and the student's plan over it,
    for stages with `teacher: original`; without it the parent serves. out: where the student's folder is written,
    everything but its weights taken from `base`, the folder `student` was loaded from. checkpoint_folder: default
    `<out>.checkpoints`; written every `checkpoint_every` seconds and when `stop()` says so, and removed when the student is
    written. A resumed run ends bit for bit as an uninterrupted one of the same thread count. scores: for stages with a `scale`.

    Result: student (folder or null), steps, seconds, samples_per_second, first_loss and last_loss (means over the
    first and last ten steps of the last stage), or {"stopped": true, "step"}. Raises BadInput where a loss stops being finite.
    """
    stored = next(student.parameters()).dtype
    nn.Module.to(student.eval(), torch.float32)  # the optimizer works on float32; `precision` says what the forward computes in
    teacher.requires_grad_(False)
    if gradient_checkpointing:
        student.enable_gradient_checkpointing()  # type: ignore[operator]
    run = Run(student, spec, source, {"parent": (teacher, plan), "original": original or (teacher, plan)}, scores,
              _checkpoint_folder(out, checkpoint_folder), hashlib.sha256((spec.digest + plan.digest).encode()).hexdigest()[:12])
    if resume:
        run.restore()
    elif run.folder and run.folder.exists():
        shutil.rmtree(run.folder)
    saved = time.monotonic()
    for _ in range(run.index, len(spec.stages)):
        run.begin()
        while run.step < run.stage.steps:
            if stop():
                run.save()
                yield Progress(step=run.done, total=run.total, message="stopped", result={"stopped": True, "step": run.done})
                return
            metrics = run.advance()
            yield Progress(step=run.done, total=run.total, message=run.stage.name, metrics=metrics)
            if run.folder and time.monotonic() - saved >= checkpoint_every:
                run.save()
                saved = time.monotonic()
        run.finish()
    nn.Module.to(student, stored)
    result = {"student": str(out) if out else None, **run.summary()}
    if out:
        write_student(student, Path(out), base, spec, result)
    if run.folder:
        shutil.rmtree(run.folder, ignore_errors=True)
    yield Progress(step=run.total, total=run.total, message="done", result=result)


def _checkpoint_folder(out: Path | str | None, given: Path | str | None) -> Path | None:
    if given:
        return Path(given)
    return Path(out).with_name(f"{Path(out).name}.checkpoints") if out else None


# --- what trains ---------------------------------------------------------------------------------------------------


def trained_blocks(student: nn.Module, plan: Plan, stage: Stage) -> list[Place]:
    """Student blocks that train, in the order of the model."""
    places = [(path, index) for path, blocks in blocks_of(student).items() for index in range(len(blocks))]
    changed = {(path, index) for path, spans in plan.stacks.items() for index, span in enumerate(spans) if not span.plain}
    if isinstance(stage.train, dict):
        chosen = {(path, index) for path, indices in stage.train.items() for index in indices}
        if unknown := chosen - set(places):
            raise BadInput(f"stage {stage.name!r} trains {min(unknown)}", "blocks of the student", "correct its list")
        return [place for place in places if place in chosen]
    if stage.train == "merged":
        return [place for place in places if place in changed]
    first = min((places.index(place) for place in changed), default=len(places)) if stage.train == "after-first-cut" else 0
    return places[first:]


def trained_parameters(student: nn.Module, stage: Stage, places: Sequence[Place]) -> dict[str, nn.Parameter]:
    """Parameters that train: those of the blocks, and, where the stage is no list of blocks, what comes after (or around) them.

    after-first-cut (PWP, HierarchicalPrune, arXiv 2508.04663): everything before the first changed block is frozen.
    "After" is the order in which the model registers its modules: embedders, stacks, output layers.
    """
    inside = tuple(f"{path}.{index}." for path, index in places)
    stacks = tuple(f"{path}." for path in blocks_of(student))
    named = dict(student.named_parameters())
    if isinstance(stage.train, dict) or stage.train == "merged":
        return {name: p for name, p in named.items() if name.startswith(inside)} if inside else {}
    last = max((i for i, name in enumerate(named) if name.startswith(stacks)), default=-1)
    around = {name for i, name in enumerate(named) if not name.startswith(stacks) and (stage.train == "all" or i > last)}
    return {name: p for name, p in named.items() if name in around or (inside and name.startswith(inside))}


def parameter_scale(plan: Plan, stage: Stage, places: Sequence[Place], scores: Scores | None) -> dict[str, float]:
    """Prefix of a block's parameters -> factor on their steps. A changed block moves in full, else it could not recover."""
    if stage.scale == "none":
        return {}
    if not scores:
        raise BadInput(f"stage {stage.name!r} scales by sensitivity, and there is no map", "a sensitivity map",
                       "pass --sensitivity map.json")
    spans = {place: plan.stacks[place[0]][place[1]] for place in places}
    sums = {f"{path}.{index}.": sum(scores.get((path, b), 0.0) for b in span.source) for (path, index), span in spans.items()}
    return block_scale(sums, stage.scale, [f"{path}.{index}." for (path, index), span in spans.items() if not span.plain])


# --- a run ---------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """Where a run stands. `begin` prepares a stage, `advance` is one optimizer step, `save` and `restore` a checkpoint."""

    student: nn.Module
    spec: DistillSpec
    source: Source
    teachers: dict[str, tuple[nn.Module, Plan]]
    scores: Scores | None
    folder: Path | None
    key: str  # of spec and plan: a checkpoint of another run is refused
    index: int = 0  # of the stage
    step: int = 0  # within the stage
    samples: int = 0
    seconds: float = 0.0
    held: dict[str, Any] | None = None  # a checkpoint's optimizer and average, until `begin` takes them

    def __post_init__(self) -> None:
        self.values: list[float] = []  # the stage's losses
        self.total = sum(stage.steps for stage in self.spec.stages)
        self.device = next(self.student.parameters()).device

    @property
    def stage(self) -> Stage:
        return self.spec.stages[self.index]

    @property
    def done(self) -> int:
        return sum(stage.steps for stage in self.spec.stages[: self.index]) + self.step

    def begin(self) -> None:
        """Choose what trains in this stage and make its optimizer."""
        stage, (self.teacher, plan) = self.stage, self.teachers[self.stage.teacher]
        if stage.inputs == "teacher" and stage.gradient == "full":
            raise BadInput(f"stage {stage.name!r} feeds blocks the teacher's states and wants the full gradient",
                           "inputs: student, or gradient: span", "change one of the two")
        dtype = next(self.teacher.parameters()).dtype
        if stage.precision == "float32" and dtype != torch.float32:
            raise BadInput(f"stage {stage.name!r} computes in float32 and the teacher is in {dtype}", "one precision",
                           "set precision: bfloat16, or load the teacher in float32")
        places = trained_blocks(self.student, plan, stage)
        scale = parameter_scale(plan, stage, places, self.scores)
        frozen = {prefix for prefix, factor in scale.items() if factor == 0}
        places = [(path, i) for path, i in places if f"{path}.{i}." not in frozen]
        self.params = trained_parameters(self.student, stage, places)
        if stage.steps and not self.params:
            raise BadInput(f"stage {stage.name!r} trains nothing (train: {stage.train})", "a plan that changes a block, or train: all",
                           "remove the stage")
        self.losses: dict[str, Loss] = {str(name): loss for name, loss in stage.losses.items()}
        self.wanted: list[Target] = losses.targets(self.teacher, plan, stage, places) if "feature" in stage.losses else []
        self.student.requires_grad_(False)
        for p in self.params.values():
            p.requires_grad_(True)
        factors = {name: next((f for prefix, f in scale.items() if name.startswith(prefix)), 1.0) for name in self.params}
        hidden = [f"{path}." for path in blocks_of(self.student)]
        self.optimizers = Optimizers(self.params.items(), stage.optimizer, stage.lr, stage.weight_decay, factors, hidden)
        self.average = Average(self.params.items(), stage.ema) if stage.ema else None
        if self.held:
            self.optimizers.load_state_dict(self.held["optimizers"])
            if self.average:
                self.average.restore(self.held["average"], self.held["average_steps"])
            self.held = None

    def advance(self) -> dict[str, Any]:
        """One optimizer step; its metrics."""
        stage, started = self.stage, time.perf_counter()
        rows = [self._micro_batch(self.step * stage.accumulate + i) for i in range(stage.accumulate)]
        parts = {name: sum(row[0][name] for row in rows) / len(rows) for name in rows[0][0]}
        spans = [sum(row[1][i] for row in rows) / len(rows) for i in range(len(rows[0][1]))]
        loss = sum(value * self.losses[name].weight for name, value in parts.items())
        norm = nn.utils.clip_grad_norm_(self.params.values(), stage.clip or math.inf)
        if not (math.isfinite(loss) and torch.isfinite(norm)):
            self._refuse(loss, parts, spans)
        share = lr_share(self.step, stage.steps, stage.warmup, stage.schedule)
        self.optimizers.step(share)
        self.student.zero_grad(set_to_none=True)
        if self.average:
            self.average.update()
        took = time.perf_counter() - started
        self.step, self.seconds, self.samples = self.step + 1, self.seconds + took, self.samples + stage.batch * stage.accumulate
        self.values.append(loss)
        return {"stage": stage.name, "stage_step": self.step, "loss": loss, **parts, "spans": spans, "lr": stage.lr * share,
                "gradient_norm": float(norm), "samples_per_second": stage.batch * stage.accumulate / took}

    def _micro_batch(self, number: int) -> tuple[dict[str, float], list[float]]:
        """Forward and backward of one batch: loss parts and span losses."""
        stage = self.stage
        batch = self.source.batch(number, stage.batch, self.spec.seed + self.index).to(self.device)
        feed = stage.inputs == "teacher"

        def backward(value: torch.Tensor) -> None:
            if value.requires_grad:
                (value / stage.accumulate).backward()

        with self._narrow():
            seen = losses.watch(self.teacher, batch, self.wanted, feed=feed, predict="output" in stage.losses)
        if stage.gradient == "full":
            with self._narrow(), losses.fast_attention(self.device.type == "cpu" and stage.precision == "bfloat16"):
                return losses.end_to_end(self.student, batch, seen, self.wanted, self.losses, backward)
        with self._narrow():
            calls = {t.place: seen.calls[t.fed] for t in self.wanted} if feed else losses.own_calls(self.student, batch, self.wanted)
        with self._narrow(), losses.fast_attention(self.device.type == "cpu" and stage.precision == "bfloat16"):
            spans = losses.by_span(self.student, batch, seen, self.wanted, calls, self.losses["feature"], backward)
        return {"feature": sum(spans) / max(len(spans), 1)}, spans

    def _narrow(self) -> AbstractContextManager[Any]:
        """The stage's precision. One context a forward: autocast keeps the weights it cast, without a graph if made under no_grad."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.stage.precision == "bfloat16" else nullcontext()

    def _refuse(self, loss: float, parts: Mapping[str, float], spans: Sequence[float]) -> None:
        bad = [target.label for target, value in zip(self.wanted, spans, strict=True) if not math.isfinite(value)]
        where = bad[0] if bad else next((name for name, value in parts.items() if not math.isfinite(value)), "the gradient")
        last = self.checkpoints()[-1:] if self.folder else []
        raise BadInput(f"stage {self.stage.name!r}: loss {loss:g} at step {self.step + 1}, first in {where}", "finite losses",
                       f"lower lr ({self.stage.lr:g}) or check the data; last good checkpoint: {last[0] if last else 'none'}")

    def finish(self) -> None:
        """End a stage: the average becomes the student."""
        if self.average:
            self.average.swap()
        if self.index + 1 < len(self.spec.stages):
            self.index, self.step, self.values = self.index + 1, 0, []

    def summary(self) -> dict[str, Any]:
        """Figures of the whole run. Losses are those of the last stage."""
        first, last = self.values[:10], self.values[-10:]
        return {"steps": self.total, "seconds": self.seconds, "samples_per_second": self.samples / self.seconds if self.seconds else 0.0,
                "first_loss": sum(first) / len(first) if first else None, "last_loss": sum(last) / len(last) if last else None}

    # --- checkpoints

    def checkpoints(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*")) if self.folder else []

    def save(self) -> None:
        """Write a checkpoint under another name, then rename it; keep the newest KEPT."""
        if self.folder is None:
            return
        final = self.folder / f"step-{self.done:08d}"
        draft = self.folder / f".{final.name}.{os.getpid()}"
        draft.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous() for name, t in self.student.state_dict().items()}, draft / "student.safetensors")
        if self.average:
            save_file(self.average.values, draft / "average.safetensors")
        torch.save({"optimizers": self.optimizers.state_dict(), "rng": torch.get_rng_state()}, draft / "optimizer.pt")
        about = {"key": self.key, "index": self.index, "step": self.step, "samples": self.samples, "seconds": self.seconds,
                 "values": self.values, "average_steps": self.average.steps if self.average else 0}
        write_atomic(draft / "run.json", json.dumps(about))
        for file in draft.iterdir():
            checkpoints.sync_folder(file)
        if final.exists():
            shutil.rmtree(final)
        os.rename(draft, final)
        checkpoints.sync_folder(self.folder)
        for old in self.checkpoints()[:-KEPT]:
            shutil.rmtree(old)

    def restore(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        newest = self.checkpoints()[-1:]
        if not newest:
            return
        about = json.loads((newest[0] / "run.json").read_text())
        if about["key"] != self.key:
            raise BadInput(f"checkpoint {newest[0]} is of another spec or plan", "one of this run",
                           "use its spec, or start without --resume")
        self.student.load_state_dict(load_file(newest[0] / "student.safetensors"))
        self.index, self.step, self.samples, self.seconds = (about[k] for k in ("index", "step", "samples", "seconds"))
        self.values = about["values"]
        state = torch.load(newest[0] / "optimizer.pt", weights_only=True)
        torch.set_rng_state(state["rng"])
        average = newest[0] / "average.safetensors"
        self.held = {"optimizers": state["optimizers"], "average_steps": about["average_steps"],
                     "average": load_file(average) if average.exists() else None}


# --- the student's folder ------------------------------------------------------------------------------------------


def write_student(student: nn.Module, out: Path, base: Path | str | None, spec: DistillSpec, metrics: Mapping[str, Any]) -> None:
    """Write the trained student: `base` with new weights, in a hidden folder that then takes the name `out`.

    Every other file of `base` is hard-linked, or copied across disks. Dtypes are those of `base`. card.json gains the
    spec and the metrics; without `base` only the transformer is saved.
    """
    work = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    if base is None:
        student.save_pretrained(work / "transformer")  # type: ignore[operator]
    else:
        _write_weights(student, Path(base), work)
        if (Path(base) / "card.json").is_file():
            card = Card.load(Path(base) / "card.json")
            kept = {**card.metrics, "distill": {k: v for k, v in metrics.items() if k != "student"}}
            card.model_copy(update={"spec": spec.model_dump(mode="json"), "metrics": kept}).save(work / "card.json")
    spec.save(work / "distill.yaml")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        os.rename(out, old)
    os.rename(work, out)
    shutil.rmtree(old, ignore_errors=True)


def _write_weights(student: nn.Module, base: Path, work: Path) -> None:
    """The files of `base` under `work`, with the student's weights in the dtypes of the old."""
    weights = transformer_folder(base)
    for file in base.rglob("*"):
        replaced = file.parent == weights and ".safetensors" in file.name
        if file.is_file() and not replaced and file.name not in ("card.json", "distill.yaml"):
            target = work / file.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.resolve(), target)
            except OSError:
                shutil.copy2(file, target)
    state = student.state_dict()
    layout = {name: (info.torch_dtype, tuple(info.shape)) for name, info in checkpoints.headers(weights).items()}
    with checkpoints.Writer(work / weights.relative_to(base), layout) as writer:
        for name in writer.order:
            writer.write(name, state[name].to("cpu", layout[name][0]))
