"""Attempts of jobs that kill themselves at a named moment: just before or just after they give a
file or a folder its final name.

Each is a process of its own, forked from one that has imported what verbs need.
"""

from __future__ import annotations

import fnmatch
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.tasks import build, compare, distill  # noqa: F401  (imported once, for all attempts)
from workbench.tasks.__main__ import main


def attempt(folder: Path, number: int, moment: tuple[str, str] | None = None) -> int:
    """Run a job's attempt as the worker does; its exit status. moment: ("before" or "after", a
    pattern of the final path).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=run, args=(str(folder), number, moment))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def run(folder: str, number: int, moment: tuple[str, str] | None) -> None:
    log = os.open(f"{folder}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if moment is not None:
        os.rename = dying(os.rename, *moment)
        os.replace = dying(os.replace, *moment)
    sys.argv = ["workbench.tasks", folder, str(number)]
    sys.exit(main())


def dying(move: Callable[..., None], when: str, pattern: str) -> Callable[..., None]:
    """The function, which kills this process at the first path of the pattern."""

    def moved(source: Any, target: Any, **more: Any) -> None:
        is_it = fnmatch.fnmatch(os.fspath(target), pattern)
        if is_it and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        move(source, target, **more)
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)

    return moved
