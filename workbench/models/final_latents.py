"""The latents that a pipeline decodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .access import Pipeline


class FinalLatents:
    """tensor: the sample after the scheduler's newest step, (B, ...) as the pipeline has it."""

    tensor: torch.Tensor | None = None


@contextmanager
def final_latents(pipe: Pipeline) -> Iterator[FinalLatents]:
    """Keep what the scheduler returns while the pipeline samples: after the last step, the latents
    that are decoded. The scheduler's `step` ends every sampling step, in every pipeline.
    """
    found = FinalLatents()
    step = pipe.scheduler.step

    def stepped(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        found.tensor = output[0] if isinstance(output, tuple) else output.prev_sample
        return output

    pipe.scheduler.step = stepped
    try:
        yield found
    finally:
        del pipe.scheduler.step
