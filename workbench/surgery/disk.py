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
from ..models.checkpoints import Reader, Writer, sync_folder, verify, write_synced
from ..records import BadInput, Card, Plan, Progress, Teacher, numel, read_text
from . import export
from .model_card import model_card
from .recipe import Recipe, recipe
from .settings import CUSTOM, config_changes, needs_code
from .target import check_target, existing, peak_rss_mib, publish, sweep


def build(
    teacher_path: Path | str,
    teacher: Teacher,
    plan: Plan,
    out: Path | str,
    *,
    dtype: str | torch.dtype | None = None,
    fat: bool = False,
    max_shard_size: int = 5_000_000_000,
) -> Iterator[Progress]:
    """Write the student of a plan as a diffusers folder with its `card.json` and `plan.yaml`.

    Works tensor by tensor, in a hidden sibling of `out` that is checked, synced and renamed at the
    end: a killed build leaves no `out`, or the older student there was. Other components are
    hard-linked where the file system allows. `dtype` None keeps the stored one. `fat`:
    single-stream blocks and dropped parts are written out as weights of the stock class, larger and
    without custom code; the pictures are the same. Raises BadInput for an unsound plan, a target
    that is not a student, too little space.
    """
    began = time.perf_counter()
    teacher_path, out = Path(teacher_path).resolve(), Path(out).absolute()
    plans.check(plan, teacher)
    check_target(out, teacher_path)
    folder = transformer_folder(teacher_path)
    config = read_config(folder / "config.json")
    config |= config_changes(config, plan)
    made = recipe(folder, teacher, plan, config, None if dtype is None else parse_dtype(dtype), fat)
    if fat:
        config = {key: value for key, value in config.items() if key not in CUSTOM}
    student = Student(
        teacher_path,
        teacher,
        plan,
        made,
        config,
        teacher.outside
        + sum(
            numel(list(piece.shape))
            for name, piece in made.items()
            if name.startswith(tuple(f"{path}." for path in plan.stacks))
        ),
    )
    _check_space(made, teacher_path, out)
    sweep(out)
    work = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        yield from _write(student, work, max_shard_size)
        publish(work, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BadInput(
                f"the disk of {out} filled up",
                "room for the whole student",
                "free space or choose another disk",
            ) from None
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    yield Progress(
        step=2 * len(made),
        total=2 * len(made),
        message=str(out),
        result={
            "student": str(out),
            "parameters": student.parameters,
            "bytes": sum(f.stat().st_size for f in out.rglob("*") if f.is_file()),
            "seconds": time.perf_counter() - began,
            "peak_rss_mib": peak_rss_mib(),
            "stock": student.stock,
        },
    )


@dataclass(frozen=True)
class Student:
    """What is to be built."""

    teacher_path: Path
    teacher: Teacher
    plan: Plan
    recipe: Recipe
    config: dict[str, Any]  # of its transformer, but for what names custom code
    parameters: int

    @property
    def stock(self) -> bool:
        return not needs_code(self.config)


def _write(student: Student, work: Path, max_shard_size: int) -> Iterator[Progress]:
    """Write the whole student folder into `work`, and read it back."""
    pipeline, made = is_pipeline(student.teacher_path), student.recipe
    target = work / "transformer" if pipeline else work
    shutil.rmtree(work, ignore_errors=True)
    layout = {name: (piece.dtype, piece.shape) for name, piece in made.items()}
    with (
        Reader(transformer_folder(student.teacher_path)) as reader,
        Writer(target, layout, max_shard_size=max_shard_size) as writer,
    ):
        for step, name in enumerate(writer.order):
            writer.stream(name, made[name].pieces(reader))
            if step % 16 == 0:
                yield Progress(
                    step=step, total=2 * len(made), message=name, metrics={"bytes": writer.bytes}
                )
    config = export.finish(target, student.config, student.teacher, student.plan)
    write_synced(target / "config.json", json.dumps(config, indent=2) + "\n")
    if pipeline:
        index = json.loads(read_text(student.teacher_path / "model_index.json", "model index"))
        write_synced(
            work / "model_index.json",
            json.dumps(export.model_index(index, config), indent=2) + "\n",
        )
        _link_components(student.teacher_path, work)
    about = card(student)
    about.save(work / "card.json")
    for name, text in model_card(about, student.plan, student.teacher, pipeline).items():
        write_synced(work / name, text)
    student.plan.save(work / "plan.yaml")
    for step, name in enumerate(verify(target, layout, writer.sums), len(made)):
        if step % 16 == 0:
            yield Progress(step=step, total=2 * len(made), message=f"reading back {name}")


def _components(teacher_path: Path) -> list[Path]:
    """The pipeline's files that a student takes over: every component but the transformer, and
    licences.
    """
    index = json.loads(read_text(teacher_path / "model_index.json", "model index"))
    folders = [
        teacher_path / name
        for name in index
        if name != "transformer" and (teacher_path / name).is_dir()
    ]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return files + [
        file
        for file in teacher_path.iterdir()
        if file.is_file() and file.name.upper().startswith(("LICENSE", "NOTICE"))
    ]


def _link_components(teacher_path: Path, work: Path) -> None:
    """Hard links, or copies where links are refused."""
    for file in _components(teacher_path):
        target = work / file.relative_to(teacher_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), target)  # resolve: a Hub cache holds symbolic links
        except OSError:
            shutil.copy2(file, target)
            sync_folder(target)


def card(student: Student) -> Card:
    """The student's card. Where the teacher is a student itself, its chain goes on to the original."""
    teacher, plan, held = student.teacher, student.plan, student.teacher_path / "card.json"
    parent = Card.load(held) if held.is_file() else None
    original = plan if parent is None else None
    if parent is not None and parent.original_plan is not None:
        original = plans.compose(plan, Plan.parse(parent.original_plan, f"original_plan of {held}"))
    link = {
        "teacher": teacher.name,
        "fingerprint": teacher.fingerprint,
        "parameters": teacher.parameters,
        "plan": plan.digest,
    }
    return Card(
        teacher=teacher.name,
        teacher_fingerprint=teacher.fingerprint,
        original=parent.original if parent else teacher.name,
        original_fingerprint=parent.original_fingerprint if parent else teacher.fingerprint,
        plan=plan.as_yaml(),
        original_plan=original.as_yaml() if original else None,
        sensitivity=plan.origin.get("sensitivity"),
        parameters=student.parameters,
        teacher_parameters=teacher.parameters,
        original_parameters=parent.original_parameters if parent else teacher.parameters,
        stock=student.stock,
        chain=[*(parent.chain if parent else []), link],
    )


def _check_space(made: Recipe, teacher_path: Path, out: Path) -> None:
    """Refuse where the disk is too full: for the new weights, and for the other components where
    they cannot be linked.
    """
    needed = 2**20 + sum(numel(list(piece.shape)) * piece.dtype.itemsize for piece in made.values())
    if is_pipeline(teacher_path) and os.stat(teacher_path).st_dev != os.stat(existing(out)).st_dev:
        needed += sum(file.stat().st_size for file in _components(teacher_path))
    free = shutil.disk_usage(existing(out)).free
    if needed > free:
        raise BadInput(
            f"{free / 2**30:.1f} GiB free for {out}",
            f"{needed / 2**30:.1f} GiB",
            "free space or choose another disk",
        )
