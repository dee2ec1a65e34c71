"""Run a verb here or queue it, and show its result."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..workspace import jobs
from ..workspace.store import Store
from . import console


def go(
    kind: str,
    spec: dict[str, Any],
    as_json: bool,
    workspace: Path | None,
    background: bool,
    device: str,
    show: Callable[[dict[str, Any]], str],
) -> None:
    """Run a verb here, or queue it; then print its result."""
    spec = {key: value for key, value in spec.items() if value is not None and value is not False}
    if background:
        job = jobs.submit(Store(workspace), kind, spec, device=device)
        emit({"job": job.id, "folder": str(job.folder)}, as_json, lambda r: r["job"])
        return
    quieten()
    from .. import tasks

    bar = console.Bar(kind)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries print is not our result
            result = tasks.run(kind, spec, workspace, bar, device=device)
    finally:
        bar.close()
    emit(result, as_json, show)


def quieten() -> None:
    """Keep the libraries' chatter away from stderr, where one line must be enough. $WORKBENCH_DEBUG
    keeps it.
    """
    if not os.environ.get("WORKBENCH_DEBUG"):
        warnings.simplefilter("ignore")
        for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
            os.environ.setdefault(name, "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def emit(result: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(result) if as_json else show(result), flush=True)


def summary(job: jobs.Job) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude={"spec", "folder"})


def compared(result: dict[str, Any]) -> str:
    """A comparison as a table: models down, scores across."""
    rows = []
    for model in result["models"]:
        row = {key: model.get(key) for key in ("name", "parameters", "ms_per_step")}
        for key, value in model["scores"].items():
            row |= (
                {
                    f"{key} {k}" if k != "overall" else key: v
                    for k, v in value.items()
                    if not isinstance(v, list | dict)
                }
                if isinstance(value, dict)
                else {key: value}
            )
        rows.append(row)
    return console.page({**result, "models": rows}, {"models": []})
