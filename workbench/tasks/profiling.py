"""The kind that measures: profile.

A spec is the verb's flags as plain data. Results are the JSON of the command line (DESIGN section 9).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import models, sensitivity
from ..records import BadInput, Progress
from . import Context, until
from .locate import locate, prompts_for, sampling
from .teachers import describe


def profile(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: teacher, edits, metric, timesteps, prompts, seeds, steps, guidance, size, dtype, resume, out."""
    if spec.get("metric", "prediction") != "prediction":
        raise BadInput(f"metric {spec['metric']!r}", "prediction", "leave --metric out")
    path, name = locate(spec["teacher"], context.store)
    teacher = describe(spec["teacher"], context.store)
    edits = spec.get("edits") or ["drop", "merge"]
    for edit in edits:
        sensitivity.parse_edit(edit, teacher)
    how, seeds = sampling(path, name, spec), int(spec.get("seeds") or 1)
    prompts = prompts_for(path, name, spec.get("prompts"), 20)
    timesteps, batch = int(spec.get("timesteps") or 8), int(spec.get("batch") or 8)
    out = Path(spec.get("out") or context.store.workspace / "sensitivity" / f"{Path(name).name}-{teacher.fingerprint}.json").absolute()
    partial = out.with_name(f".{out.name}.partial")
    if not context.resume:
        partial.unlink(missing_ok=True)
    yield Progress(step=0, total=1, message=f"loading {name}")
    pipe = models.load_pipeline(path, device=context.device, dtype=spec.get("dtype"))
    pairs = [(prompt, seed) for seed in range(seeds) for prompt in prompts]
    calls = models.trajectories(pipe, [p for p, _ in pairs], seeds=[s for _, s in pairs], steps=how.steps, guidance=how.guidance,
                                size=how.size, timesteps=timesteps, batch=batch)
    total = -(-len(pairs) // batch) * len(models.chosen_steps(how.steps, timesteps))
    measured = {"prompts": prompts, "seeds": seeds, "samples": len(pairs), "timesteps": timesteps, **vars(how)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for progress in until(context.stop, sensitivity.profile(pipe.transformer, teacher, calls, edits=edits, partial=partial,
                                                            measured=measured, total=total)):
        if progress.result is None:
            yield progress
            continue
        record = progress.result
        record.save(out)
        partial.unlink(missing_ok=True)
        context.store.add("map", out)
        facts = record.model_dump(mode="json", include={"rows", "metric", "unit", "direction", "seconds", "block_evaluations",
                                                        "naive_block_evaluations"})
        yield Progress(step=progress.step, total=progress.total, result={"map": str(out), **facts})
