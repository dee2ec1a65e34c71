"""The verb that reproduces the papers' tables."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console
from .flags import Background, Device, Json, Out, Steps, Workspace, app, at, listed
from .run import go


@app.command()
def reproduce(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="amber, hierarchicalprune, ppcl or all.")
    ] = "all",
    out: Out = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Ten minutes in all: shows the way, proves nothing.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Training of a row [10; quick: what is left].")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Rows to make, with commas [all].")] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Prompts per category [40; quick: 2].")
    ] = None,
    steps: Steps = None,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """The papers' tables on the bundled teacher, all rules at equal size and training. Goes on
    where the same -o stopped.
    """
    spec = {
        "table": table,
        "out": at(out),
        "quick": quick,
        "minutes": minutes,
        "prompts_per_category": prompts,
        "steps": steps,
        "only": listed(only) if only else None,
    }
    columns = ("group", "row", "parameters", "score", "low", "high", "retention")
    go(
        "reproduce",
        spec,
        as_json,
        workspace,
        background,
        device,
        lambda r: console.page(
            {**r, "rows": [{k: row[k] for k in columns} for row in r["rows"]]}, {"rows": []}
        ),
    )
