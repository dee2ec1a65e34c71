"""The measurement for rules that measure: a plan's error on the teacher's own trajectory."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from ..records import Progress, Teacher
from ..rules import Rule
from ..specs import PlanSpec
from .context import Context
from .prompts import prompt_seed_pairs, prompts_for
from .resolve import resolve

if TYPE_CHECKING:
    from torch import nn

    from ..models import Call
    from ..sensitivity.measured_error import PlanMeter

Loaded = Generator[Progress, None, "tuple[nn.Module, list[Call]]"]  # a transformer, its inputs
PROMPTS = 5
TIMESTEPS = 4
BATCH = 8


def plan_meter(
    spec: PlanSpec, teacher: Teacher, rule: Rule, context: Context
) -> Generator[Progress, None, PlanMeter]:
    """Load the teacher, record its trajectory, and return what measures plans on it."""
    from ..models import conditioning
    from ..sensitivity.measured_error import PlanMeter

    transformer, calls = yield from (
        recorded_inputs(spec, context) if spec.inputs else sampled_inputs(spec, context)
    )
    if spec.conditioning:
        conditioning.use_vectors(transformer, conditioning.load_vectors(spec.conditioning))
    weighting = spec.timestep_weight or rule.timestep_weight
    return PlanMeter(transformer, teacher, calls, weighting=weighting)


def recorded_inputs(spec: PlanSpec, context: Context) -> Loaded:
    """The inputs of a file that `--inputs` names: any family, no pipeline needed."""
    from .. import models

    assert spec.inputs is not None
    model = resolve(spec.teacher, context.store)
    yield Progress(step=0, total=1, message=f"loading {model.name}")
    calls = [call for call in models.load_inputs(spec.inputs) if call.branch == "cond"]
    transformer = models.load_transformer(model.folder, device=context.device, dtype=spec.dtype)
    return transformer, calls


def sampled_inputs(spec: PlanSpec, context: Context) -> Loaded:
    """The inputs of the teacher's own sampler on a few prompts."""
    from .. import models

    model = resolve(spec.teacher, context.store)
    yield Progress(step=0, total=1, message=f"loading {model.name}")
    pipe = models.load_pipeline(model.folder, device=context.device, dtype=spec.dtype)
    prompts = prompts_for(model, spec.prompts, PROMPTS)
    pairs = prompt_seed_pairs(prompts, spec.seeds, together=False)
    yield Progress(step=0, total=1, message=f"sampling {len(pairs)} trajectories")
    sampling = model.sampling.changed(spec.sampling_steps, spec.guidance, spec.size)
    calls = models.trajectories(
        pipe,
        [prompt for prompt, _ in pairs],
        seeds=[seed for _, seed in pairs],
        steps=sampling.steps,
        guidance=sampling.guidance,
        size=sampling.size,
        timesteps=spec.timesteps or TIMESTEPS,
        batch=spec.batch or BATCH,
    )
    return pipe.transformer, list(calls)
