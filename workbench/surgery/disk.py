"""A student folder written tensor by tensor, checked, then given its name in one step."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import plans
from ..checkpoints import Reader, TensorInfo, Writer, headers, raw_bytes, sync_folder, write_synced
from ..edits import student_tensor
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
    yield Progress(step=len(recipe), total=len(recipe), message=str(out), result={
        "student": str(out), "parameters": plans.parameters(plan, teacher),
        "bytes": sum(f.stat().st_size for f in out.rglob("*") if f.is_file()),
        "seconds": time.perf_counter() - began, "peak_rss_mib": peak_rss_mib(), "stock": True})


@dataclass(frozen=True)
class Piece:
    """One tensor of the student: its dtype and shape, and what it is made of."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    name: str  # the teacher's tensor, or its name inside the block
    path: str = ""  # the stack; empty outside the stacks
    span: Span | None = None
    row: StackRow | None = None

    def make(self, reader: Reader) -> torch.Tensor:
        if self.span is None or self.row is None:
            return reader.tensor(self.name).to(self.dtype)
        tensor = student_tensor(self.name, lambda block: reader.tensor(f"{self.path}.{block}.{self.name}"), self.span, self.row)
        return tensor.to(self.dtype)


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
                out[f"{path}.{index}.{name}"] = Piece(kind(info), info.shape, name, path, span, row)
    stacks = tuple(f"{path}." for path in plan.stacks)
    return out | {name: Piece(kind(info), info.shape, name) for name, info in tensors.items() if not name.startswith(stacks)}


def _write(teacher_path: Path, teacher: Teacher, plan: Plan, work: Path, recipe: Recipe, max_shard_size: int) -> Iterator[Progress]:
    """Write the whole student folder into `work`, and read it back."""
    source = transformer_folder(teacher_path)
    target = work / "transformer" if is_pipeline(teacher_path) else work
    shutil.rmtree(work, ignore_errors=True)
    layout = {name: (piece.dtype, piece.shape) for name, piece in recipe.items()}
    with Reader(source) as reader, Writer(target, layout, max_shard_size=max_shard_size) as writer:
        for step, name in enumerate(writer.order):
            writer.write(name, recipe[name].make(reader))
            if step % 16 == 0:
                yield Progress(step=step, total=len(recipe), message=name, metrics={"bytes": writer.bytes})
    config = read_config(source / "config.json")
    write_synced(target / "config.json", json.dumps(config | config_changes(config, plan), indent=2) + "\n")
    if is_pipeline(teacher_path):
        _link_components(teacher_path, work)
    card(teacher_path, teacher, plan).save(work / "card.json")
    plan.save(work / "plan.yaml")
    _verify(source, target, recipe)


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


def _verify(source: Path, target: Path, recipe: Recipe) -> None:
    """Read the student back: every tensor there in its shape and dtype; eight of them made again and compared bit for bit."""
    with Reader(source) as reader, Reader(target) as written:
        for name, piece in recipe.items():
            info = written.tensors.get(name)
            if info is None or info.shape != piece.shape or info.torch_dtype != piece.dtype:
                raise OSError(f"{target}: tensor {name} was not written as {piece.dtype} {list(piece.shape)}")
        names = sorted(recipe)
        for name in names[:: max(len(names) // 8, 1)]:
            if raw_bytes(recipe[name].make(reader)) != written.raw(name):
                raise OSError(f"{target}: tensor {name} reads back differently: the disk is failing")


def _space(recipe: Recipe, teacher_path: Path, out: Path) -> int:
    """Bytes the build will take: the new weights, and the other components where they cannot be linked."""
    needed = 2**20 + sum(numel(list(piece.shape)) * piece.dtype.itemsize for piece in recipe.values())
    if is_pipeline(teacher_path) and os.stat(teacher_path).st_dev != os.stat(existing(out)).st_dev:
        needed += sum(file.stat().st_size for file in _components(teacher_path))
    return needed
