"""How a family's transformer is called in training: the names and forms of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Inputs:
    """The transformer's arguments, by what they hold. Pipelines pass all of them by name."""

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
    reverse: bool = False  # the timestep argument is 1 - s, and the prediction x0 - noise
    listed: bool = False  # lists of samples (C, 1, H, W) and (T, D) instead of batches
    ddpm: bool = False  # predicts the noise of a DDPM, not a velocity
    # the pipeline rescales guided predictions to the norm of the conditional ones, token by token
    rescale: bool = False
