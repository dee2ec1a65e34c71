"""How each family's transformer is called in training: one row a family; and a batch of noised
latents with its conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .. import models
from ..records import BadInput, Timesteps


@dataclass(frozen=True)
class Inputs:
    """The transformer's arguments, by what they hold. Every pipeline of the table hands them over
    by name.
    """

    latents: str = "hidden_states"
    timestep: str = "timestep"
    text: tuple[str, ...] = ("encoder_hidden_states",)  # (T, D) a sample, padded to the longest
    pooled: tuple[str, ...] = ()  # (D,) a sample
    mask: str | None = None  # (B, T), true at real text tokens
    shapes: str | None = None  # a list of grids of image tokens, one list a sample
    shared: tuple[str, ...] = ()  # position ids, the same for all samples of one size
    expand: bool = False  # shared ones have a leading batch dimension
    guidance: str | None = None  # where a guidance scale goes, if the model embeds one
    constant: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0  # the timestep argument at pure noise
    reverse: bool = False  # the timestep argument is 1 - s, and the answer x0 - noise
    listed: bool = False  # lists of samples (C, 1, H, W) and (T, D) in place of batches
    ddpm: bool = False  # predicts the noise of a DDPM, not a velocity
    # the pipeline brings guided predictions to the length of the conditional ones, token by token
    rescale: bool = False


IDS = ("img_ids", "txt_ids")
INPUTS: dict[str, Inputs] = {
    "qwenimage": Inputs(mask="encoder_hidden_states_mask", shapes="img_shapes", rescale=True),
    "flux": Inputs(pooled=("pooled_projections",), shared=IDS, guidance="guidance"),
    "flux2": Inputs(shared=IDS, expand=True, guidance="guidance"),
    "sd3": Inputs(pooled=("pooled_projections",), scale=1000.0),
    "zimage": Inputs(latents="x", timestep="t", text=("cap_feats",), reverse=True, listed=True),
    "pixart": Inputs(
        mask="encoder_attention_mask",
        ddpm=True,
        scale=999.0,
        constant={"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
    ),
}


def inputs_of(family: str) -> Inputs:
    if family not in INPUTS:
        raise BadInput(
            f"family {family} has no row in data.INPUTS",
            "one of " + ", ".join(INPUTS),
            "add how its transformer is called",
        )
    return INPUTS[family]


@dataclass(frozen=True)
class Drawing:
    """How a batch is drawn: noise levels, guidance, and which part of it this process takes
    (number, of how many).
    """

    timesteps: Timesteps = field(default_factory=Timesteps)
    guidance: float | tuple[float, float] | None = None
    part: tuple[int, int] = (0, 1)


PLAIN = Drawing()


@dataclass
class Batch:
    """Clean latents x0, noise and s of each sample, and the rest of the transformer's arguments."""

    clean: torch.Tensor  # (B, N, C) packed, or (B, C, H, W)
    noise: torch.Tensor  # like clean
    sigma: torch.Tensor  # (B,) in (0, 1)
    condition: dict[str, Any]
    inputs: Inputs
    # the same with empty prompts, where the target is guided
    unconditional: dict[str, Any] | None = None
    guidance: torch.Tensor | None = None  # (B,)
    alphas: torch.Tensor | None = None  # cumulative, of a DDPM's steps

    @property
    def steps(self) -> torch.Tensor:
        """A DDPM's step of each sample, (B,)."""
        return (self.sigma * self.inputs.scale).round().long()

    @property
    def mix(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of picture and noise: 1 - s and s; of a DDPM sqrt(alpha) and sqrt(1 - alpha)."""
        shape = (-1, *[1] * (self.clean.ndim - 1))
        if self.alphas is None:
            s = self.sigma.view(shape)
            return 1 - s, s
        alpha = self.alphas[self.steps].view(shape)
        return alpha.sqrt(), (1 - alpha).sqrt()

    @property
    def noisy(self) -> torch.Tensor:
        """x_s = (1 - s) x0 + s noise."""
        picture, noise = self.mix
        return picture * self.clean + noise * self.noise

    @property
    def velocity(self) -> torch.Tensor:
        """What the model was trained to answer: the flow-matching velocity dx/ds = noise - x0; of a
        DDPM the noise.
        """
        if self.alphas is not None:
            return self.noise
        return self.clean - self.noise if self.inputs.reverse else self.noise - self.clean

    @property
    def text_mask(self) -> torch.Tensor | None:
        """(B, T), true at real text tokens; None where all are real."""
        return self.condition.get(self.inputs.mask) if self.inputs.mask else None

    def to(self, device: torch.device) -> Batch:
        def moved(value: Any) -> Any:
            return models.placed(value, device, torch.float32)

        return Batch(
            self.clean.to(device),
            self.noise.to(device),
            self.sigma.to(device),
            moved(self.condition),
            self.inputs,
            moved(self.unconditional),
            moved(self.guidance),
            moved(self.alphas),
        )

    def arguments(self, condition: dict[str, Any] | None = None) -> dict[str, Any]:
        """What to call the transformer with."""
        inputs, noisy, time = self.inputs, self.noisy, self.sigma * self.inputs.scale
        if inputs.reverse:
            time = inputs.scale - time
        latents = [x[:, None] for x in noisy] if inputs.listed else noisy
        return {
            inputs.latents: latents,
            inputs.timestep: self.steps if inputs.ddpm else time,
            **(condition or self.condition),
            **inputs.constant,
            "return_dict": False,
        }

    def predict(
        self, transformer: nn.Module, condition: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """The transformer's answer, float32, shaped like the latents."""
        answer = models.prediction(transformer(**self.arguments(condition)), transformer)
        return answer.float().reshape(self.clean.shape)

    def guided(self, transformer: nn.Module, conditional: torch.Tensor) -> torch.Tensor:
        """The classifier-free guided answer, u + g (c - u), where the batch asks for one; else the
        conditional one.
        """
        if self.unconditional is None or self.guidance is None:
            return conditional
        empty = self.predict(transformer, self.unconditional)
        scale = self.guidance.view(-1, *[1] * (self.clean.ndim - 1))
        guided = empty + scale * (conditional - empty)
        if self.inputs.rescale:
            guided = guided * (
                conditional.norm(dim=-1, keepdim=True)
                / guided.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            )
        return guided
