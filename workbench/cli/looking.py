"""Verbs that look: info, profile."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console
from .flags import Background, Device, Guidance, Json, Out, Prompts, Resume, Size, Steps, Teacher, Workspace, app, at, listed, source
from .running import go


@app.command()
def info(teacher: Teacher, as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "") -> None:
    """Family, stacks, parameters per block and part, memory by precision. TEACHER may be a config.json alone."""
    go("info", {"teacher": source(teacher)}, as_json, workspace, background, device,
       lambda r: console.page({**r, "parts": [{"part": k, "parameters": v} for k, v in r["parts"].items()],
                               "stacks": [{k: v for k, v in s.items() if k != "blocks"} for s in r["stacks"]]},
                              {"stacks": [], "parts": []}, hide=("fingerprint",)))


@app.command()
def profile(
    teacher: Teacher, out: Out = None,
    edits: Annotated[str, typer.Option(help="Which edits to score: drop, merge[:init[:gain]], drop:PART; with commas.")] = "drop,merge",
    metric: Annotated[str, typer.Option(help="prediction: relative squared change of the model's prediction.")] = "prediction",
    timesteps: Annotated[int, typer.Option(min=1, help="At how many of the sampling steps.")] = 8,
    prompts: Prompts = None, seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    steps: Steps = None, guidance: Guidance = None, size: Size = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32 [fp32 on a CPU, else as stored].")] = None,
    resume: Resume = False, as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Measure how much each block matters at each timestep. Writes a sensitivity map; higher = keep."""
    spec = {"teacher": source(teacher), "out": at(out), "edits": listed(edits), "metric": metric, "timesteps": timesteps,
            "prompts": at(prompts), "seeds": seeds, "steps": steps, "guidance": guidance, "size": size, "dtype": dtype, "resume": resume}
    go("profile", spec, as_json, workspace, background, device, lambda r: console.page({**r, "rows": len(r["rows"])}))
