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
    mask: str | None = None  # (B, T), true at real text tokens of the first text
    more_masks: Mapping[str, str] = field(default_factory=dict)  # a further text -> its text mask
    mask_always: bool = False  # a text mask is passed where nothing is padded, too
    shapes: str | None = None  # a list of grids of image tokens, one list a sample
    shared: tuple[str, ...] = ()  # position ids, the same for all samples of one size
    expand: bool = False  # shared ones have a leading batch dimension
    guidance: str | None = None  # where a guidance scale goes, if the model embeds one
    guidance_unit: float = 1.0  # that argument at a scale of 1
    constant: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0  # the timestep argument at pure noise
    # config keys, where set, that make a model which training does not call rightly -> why
    untrained: Mapping[str, str] = field(default_factory=dict)
    # the timestep argument is the sampler's own number for a noise level, not the level itself
    timed: bool = False
    reverse: bool = False  # the timestep argument is 1 - s, and the prediction x0 - noise
    listed: bool = False  # lists of samples (C, 1, H, W) and (T, D) instead of batches
    ddpm: bool = False  # predicts the noise of a DDPM, not a velocity
    # the pipeline rescales guided predictions to the norm of the conditional ones, token by token
    rescale: bool = False
    rescale_most: float | None = None  # and by no more than this factor

    @property
    def masks(self) -> Mapping[str, str]:
        """Text argument -> the argument that holds its text mask."""
        first = {self.text[0]: self.mask} if self.mask else {}
        return {**first, **self.more_masks}
