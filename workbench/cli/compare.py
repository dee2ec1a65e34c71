"""Verbs that compare: compare, demo."""

from __future__ import annotations

from typing import Annotated

import typer

from .flags import (
    Background,
    Device,
    Guidance,
    Json,
    Out,
    Size,
    Steps,
    Workspace,
    app,
    at,
    found,
    listed,
    source,
)
from .run import compared, go


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(metavar="TEACHER STUDENT...")],
    out: Out = None,
    suite: Annotated[
        str | None,
        typer.Option(help="scenes, or FILE.jsonl with a prompt a line [scenes for demo teachers]."),
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Prompts per category of the scenes [40].")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Size = None,
    scorers: Annotated[
        str | None, typer.Option(help="Scorers, with commas [all that fit the suite].")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """Sample the same prompts and seeds with several models, score them and write a page. The first
    is the reference.
    """
    spec = {
        "models": [source(m) for m in models],
        "out": at(out),
        "suite": found(suite),
        "prompts_per_category": prompts,
        "seeds": seeds,
        "steps": steps,
        "guidance": guidance,
        "size": size,
        "scorers": listed(scorers) if scorers else None,
    }
    go("compare", spec, as_json, workspace, background, device, compared)


@app.command()
def demo(
    out: Out = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="How long to distill [7].")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """The whole way on the bundled teacher, in minutes, ending with a comparison page."""
    go(
        "demo",
        {"minutes": minutes, "out": at(out)},
        as_json,
        workspace,
        background,
        device,
        compared,
    )
