"""Verbs that plan and cut: plan, plan-info, build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..rules import RULES
from . import console
from .flags import (
    Background,
    Device,
    Guidance,
    Json,
    Out,
    Prompts,
    Sensitivity,
    Size,
    Steps,
    Teacher,
    Workspace,
    app,
    at,
    factor,
    found,
    kept,
    limits,
    numbers,
    source,
)
from .run import go


@app.command()
def plan(
    teacher: Teacher,
    out: Out = None,
    rule: Annotated[
        str | None, typer.Option(help=f"Which rule proposes: {', '.join(RULES)} [uniform].")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe: its rule and how much it keeps.")
    ] = None,
    sensitivity: Sensitivity = None,
    keep: Annotated[
        str | None, typer.Option(help="N, or STACK=N,..: blocks of the student.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="At most: params=0.5 (a share), "
            "bytes=6GB@int4, latency=0.5 (share of the "
            "predicted time)."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="first, last, middle or mean: what a span's block starts as [the rule's]."
        ),
    ] = None,
    gain: Annotated[
        str | None,
        typer.Option(help="Scale of a merged block's residual step: a number, or length."),
    ] = None,
    single_from: Annotated[
        float | None,
        typer.Option(
            help="Student blocks from this one on are "
            "single-stream; below 1: from this "
            "share "
            "of the depth on."
        ),
    ] = None,
    slim_from: Annotated[
        float | None,
        typer.Option(
            help="Student blocks from this one on only "
            "read the text: its keys and values stay; "
            "below 1: from this share of the depth "
            "on."
        ),
    ] = None,
    protect: Annotated[str | None, typer.Option(help="Blocks that stay alone: 0,1,23.")] = None,
    timestep_weight: Annotated[
        str | None, typer.Option(help="normalised, uniform, high-noise, low-noise, 1000=1,0=0 ..")
    ] = None,
    edits: Annotated[
        str | None,
        typer.Option(help="What greedy may do: join, slim, single, parts; with commas [all]."),
    ] = None,
    longest: Annotated[
        int | None,
        typer.Option(min=2, help="greedy: blocks of a span, unless the size asks for more."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="greedy: how many times less error "
            "another start than a span's first "
            "block must add [1].",
        ),
    ] = None,
    shortlist: Annotated[
        int | None,
        typer.Option(min=0, help="greedy: how many edits to measure again each round; 0 all [16]."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="search: how long.")] = None,
    tries: Annotated[
        int | None,
        typer.Option(min=1, help="search: how many plans to measure, instead of a time [200]."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="search: the plan file to improve, or a rule [uniform].")
    ] = None,
    parts: Annotated[
        bool | None,
        typer.Option("--parts/--no-parts", help="hierarchical: drop parts of blocks too [yes]."),
    ] = None,
    prompts: Prompts = None,
    timesteps: Annotated[
        int | None, typer.Option(min=1, help="Rules that measure: at how many sampling steps [4].")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Size = None,
    free_cuts: Annotated[
        bool, typer.Option("--free-cuts", help="Also drop what no output depends on.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--print", help="Print every span with its reason.")
    ] = False,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """Decide what each student block is made of. Writes a plan that a person may edit."""
    spec = {
        "teacher": source(teacher),
        "out": at(out),
        "rule": rule,
        "recipe": found(recipe),
        "sensitivity": found(sensitivity),
        "keep": kept(keep),
        "budget": limits(budget),
        "init": init,
        "gain": factor(gain),
        "single_from": single_from,
        "slim_from": slim_from,
        "protect": numbers(protect, "--protect"),
        "timestep_weight": timestep_weight,
        "edits": edits,
        "longest": longest,
        "margin": margin,
        "shortlist": shortlist,
        "minutes": minutes,
        "tries": tries,
        "start": found(start),
        "parts": None if parts is None else int(parts),
        "prompts": at(prompts),
        "timesteps": timesteps,
        "steps": steps,
        "guidance": guidance,
        "size": size,
        "free_cuts": free_cuts,
    }
    go(
        "plan",
        spec,
        as_json,
        workspace,
        background,
        device,
        lambda r: console.page(
            {**told(r), "spans": [{**s, "blocks": str(s["blocks"])} for s in r["spans"]]},
            {"spans": ["stack", "block", "blocks", "reason"]} if show else {},
            hide=() if show else ("spans",),
        ),
    )


@app.command("plan-info")
def plan_info(
    plan: Annotated[Path, typer.Argument(metavar="PLAN")],
    teacher: Annotated[
        str | None, typer.Option(help="Teacher, where the plan's is elsewhere.")
    ] = None,
    sensitivity: Sensitivity = None,
    against: Annotated[
        Path | None, typer.Option(help="Another plan: say in words what this one does otherwise.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """What a plan costs: parameters, memory by precision, predicted speed and error. --teacher may
    be a config.json alone.
    """
    spec = {
        "plan": at(plan),
        "teacher": teacher and source(teacher),
        "sensitivity": found(sensitivity),
        "against": at(against),
    }
    go("plan-info", spec, as_json, workspace, background, device, lambda r: console.page(told(r)))


def told(result: dict[str, Any]) -> dict[str, Any]:
    """A plan's facts for people: free cuts and differences in words."""
    free = [
        f"drop {cut['drop']} of block {cut['block']} of {cut['stack']}: "
        f"{cut['parameters'] / 1e6:.2f} M parameters that nothing reads "
        "(workbench plan --free-cuts)"
        for cut in result["free_cuts"]
    ]
    out = {**result, "free_cuts": "; ".join(free) or "none"}
    return out | (
        {"difference": "\n  ".join(["", *result["difference"]]) or "none"}
        if "difference" in result
        else {}
    )


@app.command()
def build(
    plan: Annotated[Path, typer.Argument(metavar="PLAN")],
    out: Out = None,
    teacher: Annotated[
        str | None, typer.Option(help="Teacher, where the plan's is elsewhere.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32 [as stored].")] = None,
    fat: Annotated[
        bool,
        typer.Option(
            "--fat", help="A stock class without custom code: tied and emptied weights written out."
        ),
    ] = False,
    as_json: Json = False,
    workspace: Workspace = None,
    background: Background = False,
    device: Device = "",
) -> None:
    """Write the student of a plan as a diffusers folder, tensor by tensor."""
    spec = {
        "plan": at(plan),
        "out": at(out),
        "teacher": teacher and source(teacher),
        "dtype": dtype,
        "fat": fat,
    }
    go("build", spec, as_json, workspace, background, device, console.page)
