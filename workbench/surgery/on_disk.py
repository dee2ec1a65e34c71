"""A student folder written tensor by tensor, checked, then given its name in one step."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import plans
from ..models import is_pipeline, parse_dtype, read_config, transformer_folder
from ..models.checkpoints import Reader, Writer, verify
from ..models.conditioning import basis_of_folder
from ..models.file_io import draft_folder, sync_folder, write_synced
from ..models.loading import stored_dtype
from ..models.quantized.stored import check_unquantized
from ..records import BadInput, Card, Plan, Progress, Teacher, jsonfile, link_or_copy, numel
from ..students.modulation_factors import factors_anew
from . import export
from .model_card import model_card
from .student_config import CUSTOM, config_changes, needs_code
from .target import check_target, existing, peak_rss_mib
from .tensor_sources import Recipe, recipe


def build(
    teacher_path: Path | str,
    teacher: Teacher,
    plan: Plan,
    out: Path | str,
    *,
    dtype: str | torch.dtype | None = None,
    fat: bool = False,
    conditioning: Path | str | None = None,
    max_shard_size: int = 5_000_000_000,
) -> Iterator[Progress]:
    """Write the student of a plan as a diffusers folder with its `card.json` and `plan.yaml`.

    Works tensor by tensor, in a hidden sibling of `out` that is checked, synced and renamed at the
    end: a killed build leaves no `out`, or the older student there was. Other components are
    hard-linked where the file system allows. `dtype` None keeps the stored one. `fat`:
    single-stream blocks, dropped parts and factors are written out as weights of the stock class,
    larger and without custom code; the pictures are the same. conditioning: a file of recorded
    conditioning vectors, for a rank of modulation where they depend on more than the timestep.
    Raises BadInput for an unsound plan, a target
    that is not a student, too little space.
    """
    began = time.perf_counter()
    out = Path(out).absolute()
    student = checked_student(
        Path(teacher_path).resolve(), teacher, plan, out, dtype, fat, conditioning
    )
    try:
        with draft_folder(out) as work:
            yield from _write(student, work, max_shard_size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInput(
            f"the disk of {out} filled up",
            "room for the whole student",
            "free space or choose another disk",
        ) from None
    steps = 2 * len(student.recipe)
    result = {
        "student": str(out),
        "parameters": student.parameters,
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "seconds": time.perf_counter() - began,
        "peak_rss_mib": peak_rss_mib(),
        "stock": student.stock,
    }
    yield Progress(step=steps, total=steps, message=str(out), result=result)


def checked_student(
    teacher_path: Path,
    teacher: Teacher,
    plan: Plan,
    out: Path,
    dtype: str | torch.dtype | None,
    fat: bool,
    conditioning: Path | str | None = None,
) -> Student:
    """What will be built. Raises BadInput for everything that can be refused before a file is
    written.
    """
    plan = plans.check(plan, teacher)
    check_target(out, teacher_path)
    check_unquantized(transformer_folder(teacher_path), teacher.name, "build from")
    folder = transformer_folder(teacher_path)
    config = read_config(folder / "config.json")
    config |= config_changes(config, plan)
    written = None if dtype is None else parse_dtype(dtype)
    basis = None
    if factors_modulation(plan, teacher):
        basis = basis_of_folder(folder, conditioning)
    pieces = recipe(folder, teacher, plan, config, written, fat, basis)
    if fat:
        config = {key: value for key, value in config.items() if key not in CUSTOM}
    sizes = [numel(list(piece.shape)) * piece.dtype.itemsize for piece in pieces.values()]
    check_space(sum(sizes), teacher_path, out)
    return Student(teacher_path, teacher, plan, pieces, config)


def factors_modulation(plan: Plan, teacher: Teacher) -> bool:
    """Whether any student block's modulation is factored anew."""
    family = plans.family_of(teacher)
    for path, spans in plan.stacks.items():
        stack = teacher.stack(path)
        for span in spans:
            layout = stack.tensors(span.source[0])
            if factors_anew(layout, span, family.stack(path)) is not None:
                return True
    return False


@dataclass(frozen=True)
class Student:
    """What is to be built."""

    teacher_path: Path
    teacher: Teacher
    plan: Plan
    recipe: Recipe
    config: dict[str, Any]  # of its transformer, but for what names custom code

    @property
    def stock(self) -> bool:
        """Whether the stock class can hold it."""
        return not needs_code(self.config)

    @property
    def parameters(self) -> int:
        """Parameters outside the blocks and in them; buffers do not count."""
        stacks = tuple(f"{path}." for path in self.plan.stacks)
        inside = [piece for name, piece in self.recipe.items() if name.startswith(stacks)]
        return self.teacher.outside + sum(numel(list(piece.shape)) for piece in inside)


def _write(student: Student, work: Path, max_shard_size: int) -> Iterator[Progress]:
    """Write the whole student folder into `work`, and read it back."""
    pipeline = is_pipeline(student.teacher_path)
    pieces = student.recipe
    total = 2 * len(pieces)
    target = work / "transformer" if pipeline else work
    shutil.rmtree(work, ignore_errors=True)
    layout = {name: (piece.dtype, piece.shape) for name, piece in pieces.items()}
    with (
        Reader(transformer_folder(student.teacher_path)) as reader,
        Writer(target, layout, max_shard_size=max_shard_size) as writer,
    ):
        for step, name in enumerate(writer.order):
            writer.stream(name, pieces[name].pieces(reader))
            if step % 16 == 0:
                metrics = {"bytes": writer.bytes}
                yield Progress(step=step, total=total, message=name, metrics=metrics)
    _write_texts(student, work, target, pipeline)
    for step, name in enumerate(verify(target, layout, writer.sums), len(pieces)):
        if step % 16 == 0:
            yield Progress(step=step, total=total, message=f"reading back {name}")


def _write_texts(student: Student, work: Path, target: Path, pipeline: bool) -> None:
    """Everything but the weights: configs, code, the other components, the card and the plan."""
    config = export.finish(target, student.config, student.plan.family)
    write_synced(target / "config.json", json.dumps(config, indent=2) + "\n")
    if pipeline:
        index = jsonfile.read_object(student.teacher_path / "model_index.json", "model index")
        text = json.dumps(export.model_index(index, config), indent=2) + "\n"
        write_synced(work / "model_index.json", text)
        link_components(student.teacher_path, work)
    about = card(student)
    about.save(work / "card.json")
    dtype = stored_dtype(target)
    for name, text in model_card(about, student.plan, student.teacher, pipeline, dtype).items():
        write_synced(work / name, text)
    student.plan.save(work / "plan.yaml")


def _components(teacher_path: Path) -> list[Path]:
    """The pipeline's files that a student takes over: every component but the transformer, and
    licences.
    """
    index = jsonfile.read_object(teacher_path / "model_index.json", "model index")
    files = []
    for name in index:
        if name != "transformer" and (teacher_path / name).is_dir():
            files += [file for file in (teacher_path / name).rglob("*") if file.is_file()]
    for file in teacher_path.iterdir():
        if file.is_file() and file.name.upper().startswith(("LICENSE", "NOTICE")):
            files.append(file)
    return files


def link_components(teacher_path: Path, work: Path) -> None:
    """Hard links, or copies where links are refused. A config that says from which path it was
    loaded is written without it.
    """
    for file in _components(teacher_path):
        target = work / file.relative_to(teacher_path)
        config = jsonfile.read_object(file, "config") if file.name == "config.json" else {}
        if "_name_or_path" in config:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_synced(target, json.dumps(export.without_origin(config), indent=2) + "\n")
        elif link_or_copy(file, target):
            sync_folder(target)


def card(student: Student) -> Card:
    """The student's card. A teacher that is a student itself hands on its chain to the original."""
    teacher = student.teacher
    plan = student.plan
    file = student.teacher_path / "card.json"
    link = {
        "teacher": teacher.name,
        "fingerprint": teacher.fingerprint,
        "parameters": teacher.parameters,
        "plan": plan.digest,
    }
    first = Card(
        teacher=teacher.name,
        teacher_fingerprint=teacher.fingerprint,
        original=teacher.name,
        original_fingerprint=teacher.fingerprint,
        plan=plan.as_yaml(),
        original_plan=plan.as_yaml(),
        sensitivity=plan.origin.get("sensitivity"),
        parameters=student.parameters,
        teacher_parameters=teacher.parameters,
        original_parameters=teacher.parameters,
        stock=student.stock,
        chain=[link],
    )
    if not file.is_file():
        return first
    parent = Card.load(file)
    original_plan = None
    if parent.original_plan is not None:
        before = Plan.parse(parent.original_plan, f"original_plan of {file}")
        composed = plans.compose(plan, before)
        original_plan = composed.as_yaml() if composed else None
    changes = {
        "original": parent.original,
        "original_fingerprint": parent.original_fingerprint,
        "original_plan": original_plan,
        "original_parameters": parent.original_parameters,
        "chain": [*parent.chain, link],
        "learned_guidance": parent.is_guided,
    }
    return first.model_copy(update=changes)


def check_space(weights: int, teacher_path: Path, out: Path) -> None:
    """Refuse where the disk is too full: for so many bytes of new weights, and for the other components where
    they cannot be linked.
    """
    needed = 2**20 + weights
    if is_pipeline(teacher_path) and os.stat(teacher_path).st_dev != os.stat(existing(out)).st_dev:
        needed += sum(file.stat().st_size for file in _components(teacher_path))
    free = shutil.disk_usage(existing(out)).free
    if needed > free:
        raise BadInput(
            f"{free / 2**30:.1f} GiB free for {out}",
            f"{needed / 2**30:.1f} GiB",
            "free space or choose another disk",
        )
