"""Verbs that train: distill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import console
from .flags import Background, Device, Json, Out, Resume, Sensitivity, Workspace, app, at, found, source
from .running import go


@app.command()
def distill(
    student: Annotated[str, typer.Argument(metavar="STUDENT")], out: Out = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's distillation spec, by name.")] = None,
    spec: Annotated[Path | None, typer.Option(help="A distillation spec (distill.yaml).")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps in all, shared among the stages as the spec has them.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so many minutes.")] = None,
    data: Annotated[Path | None, typer.Option(help="An image folder with captions, or a file of prompts.")] = None,
    sensitivity: Sensitivity = None, resume: Resume = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say how long and how much memory it would take.")] = False,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Train a student to answer as its teacher does."""
    wanted = {"student": source(student), "out": at(out), "recipe": recipe, "spec": at(spec), "steps": steps, "minutes": minutes,
              "data": at(data), "sensitivity": found(sensitivity), "resume": resume, "estimate": estimate}
    go("distill", wanted, as_json, workspace, background, device, console.page)
