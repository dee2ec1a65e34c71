"""A verb for tests/faults.py, as a plugin file: what it computes depends on every step before, so
that a resume that loses, repeats or tears one ends with another result.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from workbench.plugins import register
from workbench.records import Progress
from workbench.specs import Verb, VerbSpec, option
from workbench.tasks.context import Context


class DigestSpec(VerbSpec):
    """Hash a hash, again and again."""

    verb: ClassVar[str] = "digest"
    seed: int = option(0, "What the first hash is of.")
    steps: int = option(1, "Number of hashes.")
    pause: float = option(0.01, "Time of a step.", unit="seconds")


def after(state: str, step: int) -> str:
    """The state after one more step."""
    return hashlib.sha256(f"{state} {step}".encode()).hexdigest()


def whole(seed: int, steps: int) -> str:
    """The digest of a run that nobody disturbs."""
    state = str(seed)
    for step in range(1, steps + 1):
        state = after(state, step)
    return state


def digest(spec: DigestSpec, context: Context) -> Iterator[Progress]:
    """A checkpoint each third step: a new file, renamed, as those of a distillation."""
    assert context.folder is not None
    checkpoint = context.folder / "checkpoints" / "state"
    state = str(spec.seed)
    first = 1
    if context.resume and checkpoint.exists():
        saved, state = checkpoint.read_text().split()
        first = int(saved) + 1
    for step in range(first, spec.steps + 1):
        time.sleep(spec.pause)
        state = after(state, step)
        stop = context.stop()
        if stop or step % 3 == 0:
            save(checkpoint, f"{step} {state}")
        yield Progress(step=step, total=spec.steps, metrics={"loss": 1 / step})
        if stop:
            return
    yield Progress(step=spec.steps, total=spec.steps, result={"digest": state})


def save(path: Path, text: str) -> None:
    draft = path.with_name(".state")
    draft.write_text(text)
    os.replace(draft, path)


register("verb", "digest", Verb(DigestSpec, f"{__name__}:digest"))
