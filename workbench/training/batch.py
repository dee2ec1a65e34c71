"""A batch of noised latents with its conditions, and how it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from .. import models
from ..families import Inputs
from ..records import Timesteps

Condition = dict[str, Any]  # a transformer's arguments beside latents and timestep


@dataclass(frozen=True)
class Drawing:
    """How a batch is drawn: noise levels, guidance, and this process's part of it."""

    timesteps: Timesteps = field(default_factory=Timesteps)
    guidance: float | tuple[float, float] | None = None  # a scale, or a range to draw it from
    part: tuple[int, int] = (0, 1)  # number of the part, of how many
    # no caption is left out, and the batch has the empty prompts too
    both_branches: bool = False


PLAIN = Drawing()


@dataclass
class Batch:
    """Clean latents x0, noise and noise level s of samples, and the transformer's other inputs."""

    clean: torch.Tensor  # (B, N, C) packed, or (B, C, H, W)
    noise: torch.Tensor  # like clean
    sigma: torch.Tensor  # s, (B,) in (0, 1); 1 is pure noise
    condition: Condition
    inputs: Inputs
    # with empty prompts, where the target is guided or both branches are supervised
    unconditional: Condition | None = None
    guidance: torch.Tensor | None = None  # (B,)
    alphas: torch.Tensor | None = None  # a DDPM's cumulative alphas, (its number of steps,)
    # timesteps over that of pure noise, (B,); None: the noise levels themselves
    times: torch.Tensor | None = None

    @property
    def ddpm_steps(self) -> torch.Tensor:
        """A DDPM's step of each sample, (B,)."""
        return (self.sigma * self.inputs.scale).round().long()

    @property
    def mix(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of picture and noise: 1 - s and s; of a DDPM sqrt(alpha) and sqrt(1 - alpha)."""
        shape = (-1, *[1] * (self.clean.ndim - 1))
        if self.alphas is None:
            s = self.sigma.view(shape)
            return 1 - s, s
        alpha = self.alphas[self.ddpm_steps].view(shape)
        return alpha.sqrt(), (1 - alpha).sqrt()

    @property
    def noisy(self) -> torch.Tensor:
        """x_s = (1 - s) x0 + s noise, like clean."""
        picture, noise = self.mix
        return picture * self.clean + noise * self.noise

    @property
    def velocity(self) -> torch.Tensor:
        """What the model was trained to predict, like clean.

        In flow matching the velocity dx/ds = noise - x0 (or its negative, where the family says
        `reverse`); of a DDPM the noise.
        """
        if self.alphas is not None:
            return self.noise
        if self.inputs.reverse:
            return self.clean - self.noise
        return self.noise - self.clean

    @property
    def text_mask(self) -> torch.Tensor | None:
        """(B, T), true at real text tokens; None where all are real."""
        return self.condition.get(self.inputs.mask) if self.inputs.mask else None

    @property
    def without_prompts(self) -> Batch:
        """The same noisy latents with empty prompts: the unconditional branch, never guided."""
        assert self.unconditional is not None, "drawn without empty prompts"
        return replace(self, condition=self.unconditional, unconditional=None, guidance=None)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            self.clean.to(device),
            self.noise.to(device),
            self.sigma.to(device),
            models.placed(self.condition, device, torch.float32),
            self.inputs,
            models.placed(self.unconditional, device, torch.float32),
            models.placed(self.guidance, device, torch.float32),
            models.placed(self.alphas, device, torch.float32),
            models.placed(self.times, device, torch.float32),
        )

    def arguments(self, condition: Condition | None = None) -> dict[str, Any]:
        """What to call the transformer with."""
        inputs = self.inputs
        latents: torch.Tensor | list[torch.Tensor] = self.noisy
        if inputs.listed:
            latents = [x[:, None] for x in self.noisy]  # (C, 1, H, W) each
        time = (self.sigma if self.times is None else self.times) * inputs.scale
        if inputs.ddpm:
            time = self.ddpm_steps
        elif inputs.reverse:
            time = inputs.scale - time
        return {
            inputs.latents: latents,
            inputs.timestep: time,
            **(condition or self.condition),
            **inputs.constant,
            "return_dict": False,
        }

    def predict(self, transformer: nn.Module, condition: Condition | None = None) -> torch.Tensor:
        """The transformer's prediction, float32, like clean."""
        answer = models.prediction(transformer(**self.arguments(condition)), transformer)
        return answer.float().reshape(self.clean.shape)

    def guided(self, transformer: nn.Module, conditional: torch.Tensor) -> torch.Tensor:
        """The classifier-free guided prediction u + g (c - u), where the batch has a scale g.

        conditional: c, the prediction with the prompts; returned as it is where there is no scale.
        """
        if self.unconditional is None or self.guidance is None:
            return conditional
        empty = self.predict(transformer, self.unconditional)
        scale = self.guidance.view(-1, *[1] * (self.clean.ndim - 1))
        guided = empty + scale * (conditional - empty)
        if not self.inputs.rescale:
            return guided
        length = guided.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        factor = conditional.norm(dim=-1, keepdim=True) / length
        return guided * factor.clamp_max(self.inputs.rescale_most or math.inf)
