"""Job kinds for tests of the queue: no torch, milliseconds a step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.records import BadInput, Progress
from workbench.tasks import Context


def count(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """Counts to `steps`, keeps its place in checkpoints/ every `every` steps, and notes when it ran
    in `diary`.
    """
    assert context.folder is not None
    place = context.folder / "checkpoints" / "step"
    start = int(place.read_text()) if context.resume and place.exists() else 0
    note(spec, f"start {context.folder.name}")
    for step in range(start + 1, spec["steps"] + 1):
        time.sleep(spec.get("pause", 0.01))
        if step == spec.get("die_at") and start == 0:
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        yield Progress(step=step, total=spec["steps"], metrics={"loss": 1 / step})
        stop = context.stop()
        if stop or step % spec.get("every", 1) == 0:
            place.write_text(str(step))
        if stop:
            note(spec, f"end {context.folder.name}")
            return
    note(spec, f"end {context.folder.name}")
    yield Progress(step=spec["steps"], total=spec["steps"], result={"counted": spec["steps"]})


def note(spec: dict[str, Any], text: str) -> None:
    if "diary" in spec:
        with open(spec["diary"], "a") as file:
            file.write(f"{time.time()} {text}\n")


def deaf(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """Does not listen to being stopped."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(spec["started"]).touch()
    time.sleep(60)
    yield Progress(step=1, total=1, result={})


def bad(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    raise BadInput("a triangle", "a square", "turn it")
    yield


def crash(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    print("a line before the fault", flush=True)
    raise ZeroDivisionError("by design")
    yield


def hollow(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """Leaves with exit code 0 and no result."""
    os._exit(0)
    yield
