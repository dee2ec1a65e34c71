"""Verbs that look: info, profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .flags import (
    Background,
    Device,
    Guidance,
    Json,
    Out,
    Prompts,
    Resume,
    Size,
    Steps,
    Teacher,
    Workspace,
    app,
    at,
    listed,
    source,
)
from .run import go


@app.command()
def info(
    teacher: Teacher,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """Family, stacks, parameters per block and part, memory by precision. TEACHER may be a
    config.json alone.
    """
    go(
        "info",
        {"teacher": source(teacher)},
        as_json,
        workspace,
        background,
        device,
        lambda r: console.page(
            {
                **r,
                "parts": [{"part": k, "parameters": v} for k, v in r["parts"].items()],
                "stacks": [{k: v for k, v in s.items() if k != "blocks"} for s in r["stacks"]],
            },
            {"stacks": [], "parts": []},
            hide=("fingerprint",),
        ),
    )


@app.command()
def profile(
    teacher: Teacher,
    out: Out = None,
    edits: Annotated[
        str | None,
        typer.Option(
            help="Which edits to score: drop, "
            "merge[:init[:gain]], single, drop:PART, int4; "
            "with commas "
            "[drop,merge; drop with --metric image]."
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="prediction (its relative squared change), influence "
            "(how far a block turns its input), "
            "cka (spans that linear probes replace), recovery (spans "
            "that one block replaces, before and "
            "after a short training) or image (finished pictures, "
            "scored)."
        ),
    ] = "prediction",
    scorer: Annotated[
        str | None, typer.Option(help="For --metric image [scenes for the demo, else ssim].")
    ] = None,
    timesteps: Annotated[int, typer.Option(min=1, help="At how many of the sampling steps.")] = 8,
    prompts: Prompts = None,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Recorded transformer inputs (models.save_inputs), instead of prompts."),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Size = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples per forward [8].")] = None,
    timestep_weight: Annotated[
        str | None,
        typer.Option(help="How timesteps weigh in the order that must be stable [normalised]."),
    ] = None,
    until_stable: Annotated[
        bool,
        typer.Option(
            "--until-stable", help="Add prompts, up to 200, until the order of blocks is."
        ),
    ] = False,
    longest: Annotated[
        int | None, typer.Option(min=2, help="For --metric recovery: blocks of a span at most [4].")
    ] = None,
    train_steps: Annotated[
        int | None,
        typer.Option(min=1, help="For --metric recovery: training steps of each block [60]."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Split the scan over processes, one per GPU.")
    ] = 1,
    dtype: Annotated[
        str | None, typer.Option(help="bf16, fp16 or fp32 [fp32 on a CPU, else as stored].")
    ] = None,
    resume: Resume = False,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """Measure how much each block matters at each timestep. Writes a sensitivity map; higher =
    keep.
    """
    spec = {
        "teacher": source(teacher),
        "out": at(out),
        "edits": listed(edits) if edits is not None else None,
        "metric": metric,
        "scorer": scorer,
        "timesteps": timesteps,
        "prompts": at(prompts),
        "seeds": seeds,
        "inputs": at(inputs),
        "steps": steps,
        "guidance": guidance,
        "size": size,
        "batch": batch,
        "timestep_weight": timestep_weight,
        "until_stable": until_stable,
        "longest": longest,
        "train_steps": train_steps,
        "processes": processes if processes > 1 else None,
        "dtype": dtype,
        "resume": resume,
    }
    go("profile", spec, as_json, workspace, background, device, shown)


@app.command("import-map")
def import_map(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    out: Out = None,
    baseline: Annotated[
        float, typer.Option(help="The whole model's value; score = baseline - value.")
    ] = 30.29,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """HierarchicalPrune's published table (HPSv2 after removal) as a sensitivity map of
    SD3.5-Large-Turbo; higher = keep.
    """
    go(
        "import-map",
        {"file": at(file), "out": at(out), "baseline": baseline},
        as_json,
        workspace,
        background,
        device,
        shown,
    )


def shown(result: dict[str, Any]) -> str:
    """A map's facts for people."""
    return console.page({**result, "rows": len(result["rows"])}, hide=("stability", "estimate"))
