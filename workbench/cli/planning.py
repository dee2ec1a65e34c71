"""Verbs that plan and cut: plan, plan-info, build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import console
from .flags import Background, Device, Json, Out, Sensitivity, Teacher, Workspace, app, at, factor, found, kept, numbers, share, source
from .running import go


@app.command()
def plan(
    teacher: Teacher, out: Out = None,
    rule: Annotated[str | None, typer.Option(help="uniform, amber, ..: which rule proposes [uniform].")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe: its rule and how much it keeps.")] = None,
    sensitivity: Sensitivity = None,
    keep: Annotated[str | None, typer.Option(help="N, or STACK=N,..: blocks of the student.")] = None,
    budget: Annotated[str | None, typer.Option(help="params=0.5: at most this share of the parameters.")] = None,
    init: Annotated[str | None, typer.Option(help="first, last, middle or mean: what a span's block starts as [the rule's].")] = None,
    gain: Annotated[str | None, typer.Option(help="Scale of a merged block's residual step: a number, or length.")] = None,
    single_from: Annotated[int | None, typer.Option(help="Student blocks from this one on are single-stream.")] = None,
    protect: Annotated[str | None, typer.Option(help="Blocks that stay alone: 0,1,23.")] = None,
    timestep_weight: Annotated[str | None, typer.Option(help="normalised, uniform, high-noise or low-noise [the rule's].")] = None,
    show: Annotated[bool, typer.Option("--print", help="Print every span with its reason.")] = False,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Decide what each student block is made of. Writes a plan that a person may edit."""
    spec = {"teacher": source(teacher), "out": at(out), "rule": rule, "recipe": found(recipe), "sensitivity": found(sensitivity),
            "keep": kept(keep), "budget": share(budget), "init": init, "gain": factor(gain), "single_from": single_from,
            "protect": numbers(protect, "--protect"), "timestep_weight": timestep_weight}
    go("plan", spec, as_json, workspace, background, device,
       lambda r: console.page({**r, "spans": [{**s, "blocks": str(s["blocks"])} for s in r["spans"]]},
                              {"spans": ["stack", "block", "blocks", "reason"]} if show else {}, hide=() if show else ("spans",)))


@app.command("plan-info")
def plan_info(
    plan: Annotated[Path, typer.Argument(metavar="PLAN")],
    teacher: Annotated[str | None, typer.Option(help="Teacher, where the plan's is elsewhere.")] = None,
    sensitivity: Sensitivity = None,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """What a plan costs: parameters, memory by precision, predicted speed and error."""
    spec = {"plan": at(plan), "teacher": teacher and source(teacher), "sensitivity": found(sensitivity)}
    go("plan-info", spec, as_json, workspace, background, device, console.page)


@app.command()
def build(
    plan: Annotated[Path, typer.Argument(metavar="PLAN")], out: Out = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher, where the plan's is elsewhere.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32 [as stored].")] = None,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Write the student of a plan as a diffusers folder, tensor by tensor."""
    spec = {"plan": at(plan), "out": at(out), "teacher": teacher and source(teacher), "dtype": dtype}
    go("build", spec, as_json, workspace, background, device, console.page)
