"""Verbs for tests of the queue, as a plugin file: no torch, milliseconds a step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from workbench.plugins import register
from workbench.records import BadInput, Progress
from workbench.specs import Verb, VerbSpec, option
from workbench.tasks.context import Context


class CountSpec(VerbSpec):
    """Count."""

    verb: ClassVar[str] = "count"
    steps: int = option(1, "How far to count.")
    pause: float = option(0.01, "Time of a step.", unit="seconds")
    every: int = option(1, "Steps between checkpoints.")
    die_at: int | None = option(None, "The step at which the first attempt kills itself.")
    die_stopping: bool = option(False, "Kill itself instead of writing the last checkpoint.")
    diary: str | None = option(None, "A file that notes when it ran.")
    prompts: str | None = option(None, "An input file.", place="file")
    data: str | None = option(None, "An input file or folder.", place="file-or-folder")
    out: str | None = option(None, "Not written.", place="output")


class DeafSpec(VerbSpec):
    """Do not listen to being stopped."""

    verb: ClassVar[str] = "deaf"
    started: str = option(about="A file to make when it runs.")


class EmptySpec(VerbSpec):
    """Takes nothing."""

    verb: ClassVar[str] = "empty"


def count(spec: CountSpec, context: Context) -> Iterator[Progress]:
    """Counts to `steps`, keeps its place in checkpoints/ every `every` steps, and notes when it ran
    in `diary`.
    """
    assert context.folder is not None
    place = context.folder / "checkpoints" / "step"
    start = int(place.read_text()) if context.resume and place.exists() else 0
    note(spec, f"start {context.folder.name}")
    for step in range(start + 1, spec.steps + 1):
        time.sleep(spec.pause)
        if step == spec.die_at and start == 0:
            die()
        yield Progress(step=step, total=spec.steps, metrics={"loss": 1 / step})
        stop = context.stop()
        if context.requested("sample"):
            (context.folder / "samples" / f"{step}.txt").touch()
        if context.requested("save"):
            place.write_text(str(step))
        if stop and spec.die_stopping:
            die()
        if stop or step % spec.every == 0:
            place.write_text(str(step))
        if stop:
            note(spec, f"end {context.folder.name}")
            return
    note(spec, f"end {context.folder.name}")
    yield Progress(step=spec.steps, total=spec.steps, result={"counted": spec.steps})


def die() -> None:
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def note(spec: CountSpec, text: str) -> None:
    if spec.diary is not None:
        with open(spec.diary, "a") as file:
            file.write(f"{time.time()} {text}\n")


class TasksSpec(VerbSpec):
    """Work that tasks of an array share."""

    verb: ClassVar[str] = "tasks"
    processes: int = option(1, "Tasks.")
    folder: str = option(about="Where each task leaves a file.")
    bad: int | None = option(None, "The task whose first attempt fails.")


def tasks(spec: TasksSpec, context: Context) -> Iterator[Progress]:
    yield Progress(step=1, total=1, result={"sum": 0})


def task(spec: TasksSpec, context: Context, number: int, count: int) -> Iterator[Progress]:
    """Leaves its number squared; whoever finds all files adds them up."""
    if number == spec.bad and not context.resume:
        raise ZeroDivisionError("by design")
    yield Progress(step=1, total=2)
    folder = Path(spec.folder)
    (folder / str(number)).write_text(str(number**2))
    squares = [int(file.read_text()) for file in folder.iterdir()]
    yield Progress(step=2, total=2, result={"sum": sum(squares) if len(squares) == count else None})


def place(spec: EmptySpec, context: Context) -> Iterator[Progress]:
    """Asks the workspace where to write, as `build` without -o does."""
    path = context.store.out("student", "same")
    yield Progress(step=0, total=1)
    while not context.stop():
        time.sleep(0.02)
        yield Progress(step=0, total=1, message=str(path))
    yield Progress(step=1, total=1, result=str(path))


def deaf(spec: DeafSpec, context: Context) -> Iterator[Progress]:
    """Does not listen to being stopped."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(spec.started).touch()
    time.sleep(60)
    yield Progress(step=1, total=1, result={})


class FillSpec(VerbSpec):
    """Write files."""

    verb: ClassVar[str] = "fill"
    pause: float = option(0.0, "Time of a step.", unit="seconds")


def fill(spec: FillSpec, context: Context) -> Iterator[Progress]:
    """A checkpoint of 100 kB each step, 60 of them, as a distillation keeps its own: synced."""
    assert context.folder is not None
    for step in range(1, 61):
        time.sleep(spec.pause)
        with open(context.folder / "checkpoints" / f"{step}", "wb") as file:
            file.write(os.urandom(100_000))
            file.flush()
            os.fsync(file.fileno())
        yield Progress(step=step, total=60, metrics={"loss": 1.0})
        if context.stop():
            return
    yield Progress(step=60, total=60, result={"filled": 60})


class ChatterSpec(VerbSpec):
    """Print much."""

    verb: ClassVar[str] = "chatter"
    lines: int = option(100, "Lines of 100 characters.")
    pause: float = option(0.001, "Time of a line.", unit="seconds")
    killed: bool = option(False, "End by kill -9.")


def chatter(spec: ChatterSpec, context: Context) -> Iterator[Progress]:
    """Prints numbered lines."""
    for number in range(spec.lines):
        print(f"{number:8d} {'-' * 90}", flush=True)
        time.sleep(spec.pause)
    if spec.killed:
        die()
    yield Progress(step=1, total=1, result={})


def bad(spec: EmptySpec, context: Context) -> Iterator[Progress]:
    raise BadInput("a triangle", "a square", "turn it")
    yield


def crash(spec: EmptySpec, context: Context) -> Iterator[Progress]:
    print("a line before the fault", flush=True)
    raise ZeroDivisionError("by design")
    yield


def hollow(spec: EmptySpec, context: Context) -> Iterator[Progress]:
    """Leaves with exit code 0 and no result."""
    os._exit(0)
    yield


register("verb", "count", Verb(CountSpec, f"{__name__}:count", requests=("save", "sample")))
register("verb", "tasks", Verb(TasksSpec, f"{__name__}:tasks", part=f"{__name__}:task"))
register("verb", "place", Verb(EmptySpec, f"{__name__}:place"))
register("verb", "deaf", Verb(DeafSpec, f"{__name__}:deaf"))
register("verb", "fill", Verb(FillSpec, f"{__name__}:fill"))
register("verb", "chatter", Verb(ChatterSpec, f"{__name__}:chatter"))
register("verb", "bad", Verb(EmptySpec, f"{__name__}:bad"))
register("verb", "crash", Verb(EmptySpec, f"{__name__}:crash"))
register("verb", "hollow", Verb(EmptySpec, f"{__name__}:hollow"))
