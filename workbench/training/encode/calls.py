"""What a pipeline hands its transformer: it is called, and stopped when it does. So no family needs
code for its text.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from ... import models
from ...models import Pipeline
from .. import Text, inputs_of

Size = int | tuple[int, int]  # pixels: the side, or (height, width)


class _Enough(Exception):
    """Ends a pipeline's call once its transformer's arguments are known."""


def sides(size: Size) -> tuple[int, int]:
    """(height, width)."""
    return size if isinstance(size, tuple) else (size, size)


def arguments(
    pipe: Pipeline, prompts: Sequence[tuple[str, int]], size: Size, steps: int, guidance: float
) -> dict[str, Any]:
    """What to call the pipeline with, for (prompt, seed) pairs."""
    height, width = sides(size)
    for side in {height, width}:
        # refuses sizes that the pipeline would round
        made = models._arguments(pipe, list(prompts), steps, guidance, " ", side)
    return {**made, "height": height, "width": width, "output_type": "latent"}


def first_call(
    pipe: Pipeline, prompts: Sequence[str], size: Size, steps: int = 2, guidance: float = 1.0
) -> dict[str, Any]:
    """The transformer's arguments in the first step of sampling these prompts, by name, without
    running it.

    The pipeline's scheduler is left with the noise levels of `steps` steps.
    """
    seen: dict[str, Any] = {}
    names = list(inspect.signature(pipe.transformer.forward).parameters)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.update({**dict(zip(names, args, strict=False)), **kwargs})
        raise _Enough

    handle = pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with torch.no_grad(), suppress(_Enough):
            pipe(**arguments(pipe, [(prompt, 0) for prompt in prompts], size, steps, guidance))
    finally:
        handle.remove()
    return seen


@contextmanager
def last_step(pipe: Pipeline) -> Iterator[list[torch.Tensor]]:
    """The newest latents of the sampler, in the form in which the transformer takes them: after
    sampling, the picture's.
    """
    step = pipe.scheduler.step
    newest: list[torch.Tensor] = []

    def stepped(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        newest[:] = [output[0] if isinstance(output, tuple) else output.prev_sample]
        return output

    pipe.scheduler.step = stepped
    try:
        yield newest
    finally:
        del pipe.scheduler.step


def conditions(pipe: Pipeline, prompts: Sequence[str], size: Size) -> list[Text]:
    """Text embeddings as the pipeline itself makes them, without padding."""
    return texts(pipe, first_call(pipe, prompts, size), len(prompts))


def texts(pipe: Pipeline, seen: Mapping[str, Any], count: int) -> list[Text]:
    inputs = inputs_of(models.family_of(pipe.transformer).name)
    mask = seen.get(inputs.mask) if inputs.mask else None
    real = [slice(None) if mask is None else mask[row].bool() for row in range(count)]
    return [
        {name: seen[name][row][real[row]].cpu() for name in inputs.text}
        | {name: seen[name][row].cpu() for name in inputs.pooled}
        for row in range(count)
    ]


def shared(pipe: Pipeline, seen: Mapping[str, Any]) -> Text:
    """Position ids, the same for every sample of a size."""
    inputs = inputs_of(models.family_of(pipe.transformer).name)
    return {
        name: (seen[name][0] if inputs.expand else seen[name]).cpu().contiguous().clone()
        for name in inputs.shared
    }


def levels(pipe: Pipeline) -> list[float]:
    """The noise levels of the sampling that was set up last: s of flow matching; of a DDPM the
    share of its steps.
    """
    inputs = inputs_of(models.family_of(pipe.transformer).name)
    if inputs.ddpm:
        return [float(t) / inputs.scale for t in pipe.scheduler.timesteps]
    return [float(s) for s in pipe.scheduler.sigmas if s > 0]
