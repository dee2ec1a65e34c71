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

from ..plugins import registry
from ..records import BadInput
from ..specs import VerbSpec
from ..workspace import jobs
from ..workspace.cluster.following import client_of
from ..workspace.cluster.settings import settings_of
from ..workspace.cluster.table import Engine, Order
from ..workspace.store import Store, default_workspace
from .console import Bar
from .words import words_of

Printer = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class RunOptions:
    """The flags that every verb has; on, print_for: a cluster's engine."""

    as_json: bool
    workspace: Path | None
    background: bool
    device: str
    on: str = ""
    print_for: str = ""


def run_verb(name: str, spec: VerbSpec, options: RunOptions, printer: Printer) -> None:
    """Run a verb here, or queue it; then print its result."""
    if options.print_for:
        text = engine_file(name, spec, options)
        emit({"file": text}, options.as_json, lambda r: str(r["file"]).rstrip("\n"))
        return
    if options.background or options.on:
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
    on = settings_of(options.on, store.workspace) if options.on else None
    device = options.device
    if on is not None:
        client_of(on.engine).check()
        device = "cpu"  # the checks load nothing; the node's device need not be here
    with contextlib.redirect_stdout(sys.stderr):
        tasks.check(name, spec, store, device)
    return jobs.submit(store, name, spec, device=options.device, on=on)


def engine_file(name: str, spec: VerbSpec, options: RunOptions) -> str:
    """The file that an engine takes for this command. Raises BadInput for another engine."""
    engine: Engine = registry("engine")[options.print_for]
    if "resume" in type(spec).model_fields and getattr(spec, "out", None) is None:
        raise BadInput(
            f"--print of {name} without -o", "an output that the next turn finds", "add -o PATH"
        )
    workspace = (options.workspace or default_workspace()).expanduser().resolve()
    settings = settings_of(options.on or options.print_for, workspace)
    if settings.nodes > 1:
        raise BadInput(
            f"--print with nodes: {settings.nodes}", "nodes: 1", "send it with --on slurm instead"
        )
    command = [settings.python or "python", "-m", "workbench", *words_of(name, spec)]
    command += ["--workspace", str(workspace)]
    if options.device:
        command += ["--device", options.device]
    order = Order(f"workbench-{name}", command, settings, options.device)
    return engine.file(order)


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
