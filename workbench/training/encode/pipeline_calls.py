"""What a pipeline hands its transformer: the pipeline is called, and stopped when it calls that.

So no family needs code for its text encoder.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from ... import models
from ...families import Inputs
from ...models import Pipeline
from ...models.sampling_defaults import NO_PROMPT
from ...records.picture_size import size_of
from ..cache import Text
from ..model_inputs import inputs_of

Sides = tuple[int, int]  # (height, width) in pixels
Arguments = dict[str, Any]  # of a call, by name


class _Enough(Exception):
    """Ends a pipeline's call once its transformer's arguments are known."""


def pipeline_inputs(pipe: Pipeline) -> Inputs:
    """How the pipeline's transformer is called. Raises BadInput for a family without a row."""
    return inputs_of(models.family_of(pipe.transformer).name)


def arguments(
    pipe: Pipeline,
    prompts: Sequence[tuple[str, int]],
    sides: Sides,
    steps: int,
    guidance: float,
    negative: str = NO_PROMPT,
) -> Arguments:
    """What to call the pipeline with, for (prompt, seed) pairs.

    Raises BadInput for sizes that the pipeline would round.
    """
    call = models.call_arguments(pipe, list(prompts), steps, guidance, negative, size_of(*sides))
    return {**call, "output_type": "latent"}


def first_call(
    pipe: Pipeline, prompts: Sequence[str], sides: Sides, steps: int = 2, guidance: float = 1.0
) -> Arguments:
    """The transformer's arguments in the first step of sampling these prompts; it is not run.

    The pipeline's scheduler is left with the noise levels of `steps` steps.
    """
    call: Arguments = {}
    names = list(inspect.signature(pipe.transformer.forward).parameters)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Arguments) -> None:
        call.update({**dict(zip(names, args, strict=False)), **kwargs})
        raise _Enough

    handle = pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with torch.no_grad(), suppress(_Enough):
            pipe(**arguments(pipe, [(prompt, 0) for prompt in prompts], sides, steps, guidance))
    finally:
        handle.remove()
    return call


@contextmanager
def sampled_latents(pipe: Pipeline) -> Iterator[list[torch.Tensor]]:
    """A list that holds the sampler's newest latents, in the form the transformer takes them.

    After sampling they are the picture's.
    """
    step = pipe.scheduler.step
    newest: list[torch.Tensor] = []

    def recorded_step(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        newest[:] = [output[0] if isinstance(output, tuple) else output.prev_sample]
        return output

    pipe.scheduler.step = recorded_step
    try:
        yield newest
    finally:
        del pipe.scheduler.step


def text_embeddings(pipe: Pipeline, prompts: Sequence[str], sides: Sides) -> list[Text]:
    """Each prompt's embeddings as the pipeline makes them, without padding."""
    return texts_of(pipe, first_call(pipe, prompts, sides), len(prompts))


def empty_text(pipe: Pipeline, sides: Sides, negative: str = NO_PROMPT) -> Text:
    """What stands for no prompt: the condition of the unconditional branch, as the sampler has it
    with this negative prompt; of a family without that branch the empty prompt's embeddings.
    """
    family = models.family_of(pipe.transformer)
    if not family.negative:
        return text_embeddings(pipe, [" "], sides)[0]
    calls = unconditional_calls(pipe, sides, negative)
    return texts_of(pipe, calls[-1].kwargs, 1)[0]


@torch.no_grad()
def unconditional_calls(pipe: Pipeline, sides: Sides, negative: str) -> list[models.Call]:
    """The calls of one guided step, the unconditional one last. A model that was distilled to be
    sampled without guidance may have the conditional one alone.
    """
    halves = models.family_of(pipe.transformer).batched
    with models.recorded_calls(pipe, 0, 1, [0], halves) as calls:
        pipe(**arguments(pipe, [(placeholder(pipe), 0)], sides, 2, 2.0, negative))
    return calls


def placeholder(pipe: Pipeline) -> str:
    """A prompt for calls whose prompt does not matter."""
    return "0" if models.family_of(pipe.transformer).is_class_conditional else " "


def texts_of(pipe: Pipeline, call: Mapping[str, Any], count: int) -> list[Text]:
    """The embeddings among a call's arguments, one Text per prompt, padding taken off."""
    inputs = pipeline_inputs(pipe)
    masks = {name: call.get(mask) for name, mask in inputs.masks.items()}
    texts = []
    for row in range(count):
        text = {}
        for name in inputs.text:
            tokens = call[name][row]  # (T, D)
            mask = masks.get(name)
            text[name] = (tokens if mask is None else tokens[mask[row].bool()]).cpu()
        for name in inputs.pooled:
            text[name] = call[name][row].cpu()  # (D,)
        texts.append(text)
    return texts


def position_ids(pipe: Pipeline, call: Mapping[str, Any]) -> Text:
    """Position ids among a call's arguments, the same for every sample of a size."""
    inputs = pipeline_inputs(pipe)
    ids = {}
    for name in inputs.shared:
        value = call[name][0] if inputs.expand else call[name]
        ids[name] = value.cpu().contiguous().clone()
    return ids


def sampler_levels(pipe: Pipeline) -> list[float]:
    """The noise levels of the sampling that was set up last.

    In flow matching s in (0, 1); of a DDPM the share of its steps.
    """
    inputs = pipeline_inputs(pipe)
    if inputs.ddpm:
        return [float(t) / inputs.scale for t in pipe.scheduler.timesteps]
    return [float(s) for s in pipe.scheduler.sigmas if s > 0]


def sampler_times(pipe: Pipeline) -> list[float]:
    """The timestep of each of sampler_levels, over that of pure noise."""
    last = pipe.scheduler.config.num_train_timesteps
    return [float(t) / last for t in pipe.scheduler.timesteps]
