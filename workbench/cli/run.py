"""Run a verb here or queue it, and print its result."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..specs import VerbSpec
from ..workspace import jobs
from ..workspace.store import Store
from .console import Bar

Printer = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class RunOptions:
    """The flags that every verb has."""

    as_json: bool
    workspace: Path | None
    background: bool
    device: str


def run_verb(name: str, spec: VerbSpec, options: RunOptions, printer: Printer) -> None:
    """Run a verb here, or queue it; then print its result."""
    if options.background:
        job = queued(name, spec, options)
        emit({"job": job.id, "folder": str(job.folder)}, options.as_json, lambda r: str(r["job"]))
        return
    silence_libraries()
    from .. import tasks

    with Bar(name) as bar, contextlib.redirect_stdout(sys.stderr):
        result = tasks.run(name, spec, options.workspace, bar, device=options.device)
    emit(result, options.as_json, printer)


def queued(name: str, spec: VerbSpec, options: RunOptions) -> jobs.Job:
    """The verb as a queued job. Raises BadInput, before there is a job, for what it can refuse."""
    silence_libraries()
    from .. import tasks

    store = Store(options.workspace)
    with contextlib.redirect_stdout(sys.stderr):
        tasks.check(name, spec, store, options.device)
    return jobs.submit(store, name, spec, device=options.device)


def silence_libraries() -> None:
    """Keep the libraries' warnings off stderr, unless $WORKBENCH_DEBUG is set."""
    if os.environ.get("WORKBENCH_DEBUG"):
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def emit(result: dict[str, Any], as_json: bool, printer: Printer) -> None:
    """Print a result on stdout: one JSON object, or text."""
    text = json.dumps(result) if as_json else printer(result)
    print(text, flush=True)
