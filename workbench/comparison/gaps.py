"""The guidance gap of every model of a comparison, on the samples of the first one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import models
from ..models import Pipeline
from ..models.prompt_encodings import Prompts
from ..models.sampling import Call
from ..training.guidance_gap import GuidanceGap, gap_sums
from .pictures import Settings

PROMPTS = 8  # evenly from the suite
TIMESTEPS = 4  # of the sampler, evenly, with both ends
CPU = torch.device("cpu")


class Gaps:
    """Measures model after model. The first one samples, and all predict on its noisy latents, with
    and without the prompts.
    """

    def __init__(self, prompts: Sequence[str], settings: Settings) -> None:
        self.prompts = list(prompts[:: -(-len(prompts) // PROMPTS)])
        self.settings = settings
        self.pairs: list[tuple[Call, Call]] | None = None  # with the prompts, without
        self.first: list[torch.Tensor] = []  # gaps of the first model, one a pair

    @property
    def asked(self) -> list[Prompts]:
        """What the next `measure` will sample."""
        how = self.settings
        if self.pairs is not None:
            return []
        seeds = range(len(self.prompts))
        asked = Prompts(
            self.prompts, seeds, how.steps, how.guidance, how.size, how.batch, how.negative
        )
        return [asked]

    def measure(self, pipe: Pipeline) -> GuidanceGap | None:
        """None where sampling has one branch: guidance 1 or less, or taken as a number."""
        if self.pairs is None:
            self.pairs = self._record(pipe)
        if not self.pairs:
            return None
        gaps = [self._gap(pipe, *pair) for pair in self.pairs]
        self.first = self.first or gaps
        sums = [gap_sums(own, first) for own, first in zip(gaps, self.first, strict=True)]
        return GuidanceGap.of_sums([sum(column) for column in zip(*sums, strict=True)])

    def _record(self, pipe: Pipeline) -> list[tuple[Call, Call]]:
        """Both branches' inputs along the pipeline's own trajectory, in the host's memory."""
        conditional: list[Call] = []
        unconditional: list[Call] = []
        [request] = self.asked
        for call in models.trajectories(pipe, **vars(request), timesteps=TIMESTEPS):
            call.kwargs = models.placed(call.kwargs, CPU, pipe.transformer.dtype)
            (conditional if call.branch == "cond" else unconditional).append(call)
        return list(zip(conditional, unconditional, strict=False))

    @torch.no_grad()
    def _gap(self, pipe: Pipeline, conditional: Call, unconditional: Call) -> torch.Tensor:
        """(B, ...), float32, in the host's memory."""
        transformer = pipe.transformer
        weight = next(transformer.parameters())
        predictions = []
        for call in (conditional, unconditional):
            arguments = models.placed(call.kwargs, weight.device, weight.dtype)
            prediction = models.prediction(transformer(**arguments), transformer)
            predictions.append(prediction.float().cpu())
        return predictions[0] - predictions[1]
