"""A student folder written tensor by tensor, checked, then given its name in one step."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import checkpoints, plans
from ..checkpoints import Reader, TensorInfo, Writer, headers, raw_bytes, sync_folder, verify, write_synced
from ..edits import Window, student_tensor
from ..families import StackRow
from ..models import (
    is_pipeline,
    parse_dtype,
    read_config,
    transformer_folder,
)
from ..records import BadInput, Card, Plan, Progress, Span, Teacher, numel, read_text
from .settings import config_changes
from .target import check_target, existing, peak_rss_mib, publish, sweep


def build(teacher_path: Path | str, teacher: Teacher, plan: Plan, out: Path | str, *, dtype: str | torch.dtype | None = None,
          max_shard_size: int = 5_000_000_000) -> Iterator[Progress]:
    """Write the student of a plan as a diffusers folder with its `card.json` and `plan.yaml`.

    Works tensor by tensor, in a hidden sibling of `out` that is checked, synced and renamed at the end: a killed build
    leaves no `out`. Other components are hard-linked where the file system allows. `dtype` None keeps the stored one.
    Raises BadInput for an unsound plan, a plan that needs custom code, a target that is not a student, too little space.
    """
    began = time.perf_counter()
    teacher_path, out = Path(teacher_path).resolve(), Path(out).absolute()
    plans.check(plan, teacher)
    if not plans.stock(plan):
        raise BadInput("the plan has single-stream blocks or dropped parts", "a plan of depth only: the rest is not built yet",
                       "remove stream and drop")
    check_target(out, teacher_path)
    recipe = _recipe(transformer_folder(teacher_path), teacher, plan, None if dtype is None else parse_dtype(dtype))
    needed = _space(recipe, teacher_path, out)
    free = shutil.disk_usage(existing(out)).free
    if needed > free:
        raise BadInput(f"{free / 2**30:.1f} GiB free for {out}", f"{needed / 2**30:.1f} GiB", "free space or choose another disk")
    sweep(out)
    work = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        yield from _write(teacher_path, teacher, plan, work, recipe, max_shard_size)
        publish(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    yield Progress(step=2 * len(recipe), total=2 * len(recipe), message=str(out), result={
        "student": str(out), "parameters": plans.parameters(plan, teacher),
        "bytes": sum(f.stat().st_size for f in out.rglob("*") if f.is_file()),
        "seconds": time.perf_counter() - began, "peak_rss_mib": peak_rss_mib(), "stock": True})


@dataclass(frozen=True)
class Piece:
    """One tensor of the student: its dtype and shape, and what it is made of."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    name: str  # the teacher's tensor, or its name inside the block
    copied: bool  # its bytes are the teacher's
    path: str = ""  # the stack; empty outside the stacks
    span: Span | None = None
    row: StackRow | None = None

    def source(self, block: int) -> str:
        """The teacher's tensor in that block."""
        return f"{self.path}.{block}.{self.name}" if self.path else self.name

    def pieces(self, reader: Reader) -> Iterator[memoryview]:
        """Its bytes in order, a few MiB at a time, whatever its size."""
        first = self.span.source[0] if self.span else 0
        if self.copied:
            yield from reader.stream(self.source(first))
            return
        shape = reader.tensors[self.source(first)].shape
        if shape[:1] != self.shape[:1] or not shape:  # rows go: no slab of the teacher's is a slab of ours
            yield raw_bytes(self._make(reader.tensor, None))
            return
        count = max(checkpoints.SLAB * shape[0] // max(reader.tensors[self.source(first)].bytes, 1), 1)
        for at in range(0, shape[0], count):
            end = min(at + count, shape[0])
            yield raw_bytes(self._make(lambda name: reader.rows(name, at, end), (at, shape[0])))  # noqa: B023

    def _make(self, read: Callable[[str], torch.Tensor], window: Window | None) -> torch.Tensor:
        if self.span is None or self.row is None:
            return read(self.name).to(self.dtype)
        first = self.span.source[0]
        held = read(self.source(first))  # asked for twice where a mean is taken
        made = student_tensor(self.name, lambda block: held if block == first else read(self.source(block)), self.span, self.row, window)
        return made.to(self.dtype)


Recipe = dict[str, Piece]  # by the tensor's name in the student


def _recipe(folder: Path, teacher: Teacher, plan: Plan, dtype: torch.dtype | None) -> Recipe:
    """Every tensor of the student, blocks renumbered without gaps."""
    tensors = headers(folder)
    family = plans.family_of(teacher)

    def kind(info: TensorInfo) -> torch.dtype:
        return dtype if dtype is not None and info.torch_dtype.is_floating_point else info.torch_dtype

    out: Recipe = {}
    for path, spans in plan.stacks.items():
        for index, span in enumerate(spans):
            layout = teacher.stack(path).tensors(span.source[0])
            row = family.stack(path).fitted(layout)
            for name in layout:
                info = tensors[f"{path}.{span.source[0]}.{name}"]
                blank = torch.empty(info.shape, dtype=info.torch_dtype, device="meta")
                made = student_tensor(name, lambda block: blank, span, row)  # noqa: B023
                out[f"{path}.{index}.{name}"] = Piece(kind(info), tuple(made.shape), name, made is blank and kind(info) == made.dtype,
                                                      path, span, row)
    stacks = tuple(f"{path}." for path in plan.stacks)
    return out | {name: Piece(kind(info), info.shape, name, kind(info) == info.torch_dtype)
                  for name, info in tensors.items() if not name.startswith(stacks)}


def _write(teacher_path: Path, teacher: Teacher, plan: Plan, work: Path, recipe: Recipe, max_shard_size: int) -> Iterator[Progress]:
    """Write the whole student folder into `work`, and read it back."""
    source = transformer_folder(teacher_path)
    target = work / "transformer" if is_pipeline(teacher_path) else work
    shutil.rmtree(work, ignore_errors=True)
    layout = {name: (piece.dtype, piece.shape) for name, piece in recipe.items()}
    with Reader(source) as reader, Writer(target, layout, max_shard_size=max_shard_size) as writer:
        for step, name in enumerate(writer.order):
            writer.stream(name, recipe[name].pieces(reader))
            if step % 16 == 0:
                yield Progress(step=step, total=2 * len(recipe), message=name, metrics={"bytes": writer.bytes})
    config = read_config(source / "config.json")
    write_synced(target / "config.json", json.dumps(config | config_changes(config, plan), indent=2) + "\n")
    if is_pipeline(teacher_path):
        _link_components(teacher_path, work)
    card(teacher_path, teacher, plan).save(work / "card.json")
    plan.save(work / "plan.yaml")
    for step, name in enumerate(verify(target, layout, writer.sums), len(recipe)):
        if step % 16 == 0:
            yield Progress(step=step, total=2 * len(recipe), message=f"reading back {name}")


def _components(teacher_path: Path) -> list[Path]:
    """The pipeline's files that a student takes over: every component but the transformer, and licences."""
    index = json.loads(read_text(teacher_path / "model_index.json", "model index"))
    folders = [teacher_path / name for name in index if name != "transformer" and (teacher_path / name).is_dir()]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return files + [file for file in teacher_path.iterdir() if file.is_file() and file.name.upper().startswith(("LICENSE", "NOTICE"))]


def _link_components(teacher_path: Path, work: Path) -> None:
    """Hard links, or copies where links are refused; model_index.json is copied."""
    write_synced(work / "model_index.json", read_text(teacher_path / "model_index.json", "model index"))
    for file in _components(teacher_path):
        target = work / file.relative_to(teacher_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), target)  # resolve: a Hub cache holds symbolic links
        except OSError:
            shutil.copy2(file, target)
            sync_folder(target)


def card(teacher_path: Path, teacher: Teacher, plan: Plan) -> Card:
    """The student's card. Where the teacher is a student itself, its chain goes on to the original."""
    held = teacher_path / "card.json"
    parent = Card.load(held) if held.is_file() else None
    original = plan if parent is None else None
    if parent is not None and parent.original_plan is not None:
        original = plans.compose(plan, Plan.parse(parent.original_plan, f"original_plan of {held}"))
    link = {"teacher": teacher.name, "fingerprint": teacher.fingerprint, "parameters": teacher.parameters, "plan": plan.digest}
    return Card(
        teacher=teacher.name, teacher_fingerprint=teacher.fingerprint,
        original=parent.original if parent else teacher.name,
        original_fingerprint=parent.original_fingerprint if parent else teacher.fingerprint,
        plan=plan.as_yaml(), original_plan=original.as_yaml() if original else None,
        sensitivity=plan.origin.get("sensitivity"), parameters=plans.parameters(plan, teacher),
        teacher_parameters=teacher.parameters,
        original_parameters=parent.original_parameters if parent else teacher.parameters,
        stock=plans.stock(plan), chain=[*(parent.chain if parent else []), link])


def _space(recipe: Recipe, teacher_path: Path, out: Path) -> int:
    """Bytes the build will take: the new weights, and the other components where they cannot be linked."""
    needed = 2**20 + sum(numel(list(piece.shape)) * piece.dtype.itemsize for piece in recipe.values())
    if is_pipeline(teacher_path) and os.stat(teacher_path).st_dev != os.stat(existing(out)).st_dev:
        needed += sum(file.stat().st_size for file in _components(teacher_path))
    return needed
