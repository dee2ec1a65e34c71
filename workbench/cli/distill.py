"""Verbs that train: distill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .flags import (
    Background,
    Device,
    Json,
    Out,
    Prompts,
    Resume,
    Sensitivity,
    Size,
    Workspace,
    app,
    at,
    found,
    source,
)
from .run import go


@app.command()
def distill(
    student: Annotated[str, typer.Argument(metavar="STUDENT")],
    out: Out = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's distillation spec, by name.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="A distillation spec (distill.yaml).")] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Steps in all, shared among the stages as the spec has them."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many minutes.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A file of prompts, an image folder with captions, tar shards, or `scenes`."
        ),
    ] = None,
    scenes: Annotated[
        int | None, typer.Option(min=0, help="How many of the demo's scenes; 0: without end.")
    ] = None,
    square: Annotated[
        bool, typer.Option("--square", help="All pictures square, in place of aspect buckets.")
    ] = False,
    size: Size = None,
    sensitivity: Sensitivity = None,
    resume: Resume = False,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Only say how long and how much memory it would take."),
    ] = False,
    devices: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="8x80GB",
            help="With --estimate: devices that are not here; STUDENT may be a plan.",
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(min=1, help="Processes that share each batch: one a GPU, or some on a CPU."),
    ] = 1,
    shard: Annotated[
        bool,
        typer.Option("--shard", help="Split teacher and student between the processes (FSDP2)."),
    ] = False,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing", help="Gradient checkpointing: less memory, a third more work."
        ),
    ] = False,
    keep: Annotated[int, typer.Option(min=1, help="Checkpoints to keep.")] = 2,
    watch: Annotated[
        int | None,
        typer.Option(
            min=0, help="Sample fixed prompts every so many steps; 0: never [four times]."
        ),
    ] = None,
    prompts: Prompts = None,
    tracker: Annotated[
        list[str] | None, typer.Option(help="trackio, tensorboard ..: takes the metrics too.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """Train a student to answer as its teacher does."""
    wanted = {
        "student": source(student),
        "out": at(out),
        "recipe": recipe,
        "spec": at(spec),
        "steps": steps,
        "minutes": minutes,
        "data": found(data, folder=True) if data != "scenes" else data,
        "scenes": scenes,
        "square": square,
        "size": size,
        "sensitivity": found(sensitivity),
        "resume": resume,
        "estimate": estimate,
        "for": devices,
        "keep": keep,
        "processes": processes if processes > 1 else None,
        "shard": shard,
        "checkpointing": checkpointing,
        "watch": watch,
        "prompts": at(prompts),
        "trackers": tracker or None,
    }
    go("distill", wanted, as_json, workspace, background, device, console.page)
