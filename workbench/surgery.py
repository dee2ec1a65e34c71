"""Surgery: make a student of a plan, in memory for a preview, or on disk for good.

In memory the teacher's module lists are re-wired and its weights shared. On disk the checkpoint is rewritten tensor by tensor.
Both take every weight from `edits.student_tensor`, so they agree bit for bit where the teacher is loaded in the dtype it is stored in.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from . import plans
from .checkpoints import Reader, TensorInfo, Writer, headers, raw_bytes, sync_folder, write_synced
from .edits import student_block_state, student_tensor
from .families import FAMILIES, StackRow
from .models import (
    Pipeline,
    blocks_of,
    config_of,
    describe_module,
    family_of,
    is_pipeline,
    parse_dtype,
    read_config,
    transformer_folder,
    transformer_of,
)
from .records import BadInput, Card, Plan, Progress, Span, Teacher, numel, read_text

# --- in memory -----------------------------------------------------------------------------------------------------

# Blocks with weights of their own (merged, gain, drop), kept per model and span while the model lives, so that a second
# preview costs nothing. At most as many as the teacher has blocks.
_MADE: WeakKeyDictionary[nn.Module, OrderedDict[str, nn.Module]] = WeakKeyDictionary()


@contextmanager
def applied(model: Pipeline | nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """While inside, the loaded teacher is the plan's student; afterwards it is exactly what it was, also after an exception.

    Kept blocks are the teacher's own objects; merged blocks are computed once and cached. Yields the transformer.
    Parts dropped by the plan are emptied, not removed. Raises BadInput for an unsound plan.
    """
    transformer = transformer_of(model)
    plans.check(plan, describe_module(transformer))
    family, stacks = family_of(transformer), blocks_of(transformer)
    students = {path: nn.ModuleList([_block(transformer, stacks[path], path, span, family.stack(path)) for span in spans])
                for path, spans in plan.stacks.items()}
    with ExitStack() as undo:
        undo.callback(transformer.__dict__.__setitem__, "_internal_dict", transformer.__dict__["_internal_dict"])
        for path, stack in stacks.items():
            undo.callback(transformer.set_submodule, path, stack)
        for path, student in students.items():
            student.training = stacks[path].training
            transformer.set_submodule(path, student)
        cast(Any, transformer).register_to_config(**config_changes(config_of(transformer), plan))
        yield transformer


def student_transformer(transformer: nn.Module, plan: Plan) -> nn.Module:
    """A new transformer of the stock class with the plan's depth and weights of its own; the teacher is left alone."""
    with applied(transformer, plan) as student:
        return copy.deepcopy(student)


def _block(transformer: nn.Module, stack: nn.ModuleList, path: str, span: Span, row: StackRow) -> nn.Module:
    """The block a span makes: the teacher's own where its weights are unchanged, else a cached copy."""
    source = stack[span.source[0]]
    if len(span.source) == 1 and span.gain == 1 and not span.drop and span.stream in (None, row.kind):
        return source
    made = _MADE.setdefault(transformer, OrderedDict())
    weight = next(source.parameters())
    versions = sum(p._version for block in span.source for p in stack[block].parameters())  # training changes them
    key = f"{path} {span.model_dump_json()} {weight.dtype} {weight.device} {versions}"
    if key not in made:
        with torch.no_grad():
            state = student_block_state(lambda block: stack[block].state_dict(), span, row)
        made[key] = copy.deepcopy(source)
        made[key].load_state_dict(state, assign=True)
    made.move_to_end(key)
    while len(made) > max(len(stack), 1):
        made.popitem(last=False)
    return made[key]


def config_changes(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What the plan changes in the transformer's config: depths, and keys that list block numbers, renumbered."""
    out: dict[str, Any] = {}
    for row in FAMILIES[plan.family].stacks:
        spans = plan.stacks[row.path]
        out[row.depth_key] = len(spans)
        for key in row.per_index:
            listed = config.get(key) or ()
            kept = [j for j, span in enumerate(spans) if span.source[0] in listed]
            out[key] = tuple(kept) if isinstance(listed, tuple) else kept
    return out


# --- on disk -------------------------------------------------------------------------------------------------------


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
    _check_target(out, teacher_path)
    recipe = _recipe(transformer_folder(teacher_path), teacher, plan, None if dtype is None else parse_dtype(dtype))
    needed = _space(recipe, teacher_path, out)
    free = shutil.disk_usage(_existing(out)).free
    if needed > free:
        raise BadInput(f"{free / 2**30:.1f} GiB free for {out}", f"{needed / 2**30:.1f} GiB", "free space or choose another disk")
    _sweep(out)
    work = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        yield from _write(teacher_path, teacher, plan, work, recipe, max_shard_size)
        _publish(work, out)
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


# --- the target folder ---------------------------------------------------------------------------------------------


def _check_target(out: Path, teacher_path: Path) -> None:
    """Only a new folder, an empty one or an older student may be written to."""
    if out.resolve() == teacher_path or teacher_path.is_relative_to(out.resolve()) or out.resolve().is_relative_to(teacher_path):
        raise BadInput(f"target {out} is (part of) the teacher {teacher_path}", "a folder of its own", "choose another -o")
    if out.exists() and not (out.is_dir() and ((out / "card.json").is_file() or not any(out.iterdir()))):
        raise BadInput(f"{out} exists and is no student (no card.json)", "a new folder or a student to replace", "choose another -o")


def _space(recipe: Recipe, teacher_path: Path, out: Path) -> int:
    """Bytes the build will take: the new weights, and the other components where they cannot be linked."""
    needed = 2**20 + sum(numel(list(piece.shape)) * piece.dtype.itemsize for piece in recipe.values())
    if is_pipeline(teacher_path) and os.stat(teacher_path).st_dev != os.stat(_existing(out)).st_dev:
        needed += sum(file.stat().st_size for file in _components(teacher_path))
    return needed


def _existing(path: Path) -> Path:
    """The nearest folder on the way up that exists."""
    return path if path.is_dir() else _existing(path.parent)


def _sweep(out: Path) -> None:
    """Clear up after killed builds of the same target: half-written folders go, a student that stood aside comes back."""
    for stale in out.parent.glob(f".{out.name}.*-*"):
        kind, _, pid = stale.name.removeprefix(f".{out.name}.").partition("-")
        if kind not in ("partial", "old") or not pid.isdigit() or _alive(int(pid)):
            continue
        if kind == "old" and not out.exists():
            os.rename(stale, out)
        else:
            shutil.rmtree(stale, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _publish(work: Path, out: Path) -> None:
    """Sync the finished folder and give it its name; an older student stands aside until then."""
    for folder, _, _ in os.walk(work):
        sync_folder(Path(folder))
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    if out.exists():
        os.rename(out, old)
    os.rename(work, out)
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
