"""Milliseconds of a transformer for one sampling step of one picture.

The sampler itself says what a step is: the forwards it makes are recorded and run again. Under
classifier-free guidance that is two, with and without the prompt; a model that takes the guidance
scale as a number (FLUX) makes one.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import models
from ..models import Pipeline
from ..models.prompt_encodings import Prompts
from ..specs.placements import Placement
from .holding import WHOLE, Holding
from .pictures import Settings

WARM_UP = 2  # steps per model that are not timed
ROUNDS = 15  # timed steps per model
LEAST = 3  # that must do once SECONDS are over
SECONDS = 60.0

StepCalls = list[dict[str, Any]]  # the arguments of each forward of one sampling step


@dataclass(frozen=True)
class Timed:
    """A model to time: its folder, and the forwards of one step as its own sampler makes them."""

    path: Path
    calls: StepCalls


def step_calls(pipe: Pipeline, prompt: str, settings: Settings) -> StepCalls:
    """The transformer's arguments in one sampling step of one picture, forward by forward."""
    calls = models.trajectories(pipe, **vars(step_prompts(prompt, settings)), timesteps=1)
    return [call.kwargs for call in calls]


def step_prompts(prompt: str, settings: Settings) -> Prompts:
    """What step_calls samples."""
    how = settings
    return Prompts([prompt], [0], 2, how.guidance, how.size, negative=how.negative)


@torch.no_grad()
def milliseconds_per_step(
    timed: Mapping[str, Timed], dtype: str | None, device: str, held: Holding = WHOLE
) -> dict[str, float]:
    """Median milliseconds of one sampling step of each model: the models take turns where they can
    be held together, else they are timed one after the other.
    """
    if held.together:
        return times_in_turns(timed, dtype, device, held.placement)
    times: dict[str, float] = {}
    for name, model in timed.items():
        times |= times_in_turns({name: model}, dtype, device, held.placement)
        gc.collect()
    return times


def times_in_turns(
    timed: Mapping[str, Timed], dtype: str | None, device: str, placement: Placement
) -> dict[str, float]:
    loaded = {
        name: models.load_transformer(
            model.path, device=device, dtype=dtype, streamed=placement.streamed
        )
        for name, model in timed.items()
    }
    times: dict[str, list[float]] = {name: [] for name in loaded}
    began = time.monotonic()
    for turn in range(WARM_UP + ROUNDS):
        if turn >= WARM_UP + LEAST and time.monotonic() - began > SECONDS:
            break
        for name, transformer in loaded.items():
            elapsed = step_seconds(transformer, timed[name].calls, device)
            if turn >= WARM_UP:
                times[name].append(1000 * elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def step_seconds(transformer: nn.Module, calls: StepCalls, device: str) -> float:
    wait_for(device)
    start = time.perf_counter()
    for arguments in calls:
        transformer(**arguments)
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
