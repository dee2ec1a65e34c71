"""Samples of a model's shapes without any data: what a dry run is fed with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..families import Inputs
from ..plans import Tokens
from ..training.batch_source import Bucket, LatentSource
from ..training.cache import Sample
from ..training.model_inputs import inputs_of

# keys of a config under which the width of a text embedding is, the first that is there
TEXT_WIDTHS = (
    "joint_attention_dim",
    "cap_feat_dim",
    "caption_channels",
    "text_dim",
    "text_embed_dim",
)
POOLED_WIDTHS = ("pooled_projection_dim",)
SIZES = ("original_size", "target_size", "crop_coords")  # of CogView4


@dataclass(frozen=True)
class MadeUpSamples:
    """Endlessly the same sample, in the place of a cache's shards."""

    made: Sample

    def __len__(self) -> int:
        return 2**20

    def sample(self, index: int) -> Sample:
        return self.made


def made_up_source(family: str, config: Mapping[str, Any], tokens: Tokens) -> LatentSource:
    """A source whose batches have the shapes of a real one's: pictures of one size, every prompt of
    `tokens.text` tokens.

    config: the transformer's, with all its class's arguments.
    """
    inputs = inputs_of(family)
    text = {}
    for name in inputs.text:
        text[name] = torch.zeros(tokens.text, width_of(config, TEXT_WIDTHS))
    for name in inputs.pooled:
        text[name] = pooled_of(name, config)
    sample = Sample(latents_of(config, inputs, tokens), text)
    side = side_of(tokens)
    bucket = Bucket([MadeUpSamples(sample)], (1, side, side), ids_of(config, inputs, tokens))  # type: ignore[list-item]
    takes_guidance = inputs.guidance and config.get("guidance_embeds", True)
    return LatentSource(
        [bucket],
        family=family,
        empty=sample,
        guidance=3.5 if takes_guidance else None,
        alphas=[1 - i / 1001 for i in range(1, 1001)] if inputs.ddpm else None,
    )


def pooled_of(name: str, config: Mapping[str, Any]) -> torch.Tensor:
    """One sample's argument without tokens: a class, a size in pixels, or a pooled text (D,)."""
    if name == "class_labels":
        return torch.tensor(0)
    if name in SIZES:
        return torch.zeros(2)
    return torch.zeros(width_of(config, POOLED_WIDTHS))


def width_of(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise KeyError(f"none of {', '.join(keys)} in the config of {config.get('_class_name')}")


def side_of(tokens: Tokens) -> int:
    """Image tokens along one side of a square picture."""
    return round(tokens.image**0.5)


def latents_of(config: Mapping[str, Any], inputs: Inputs, tokens: Tokens) -> torch.Tensor:
    """One sample's latents: packed into tokens where the model is given their places, else a
    picture (C, H, W) or a video (C, F, H, W)."""
    channels = int(config["in_channels"])
    if inputs.shapes or inputs.shared:
        return torch.zeros(side_of(tokens) ** 2, channels)
    patch = config.get("patch_size") or config.get("all_patch_size") or 1
    if isinstance(patch, list | tuple):
        pixels = side_of(tokens) * int(patch[-1])
        frames = [int(patch[0]) * tokens.frames] if len(patch) == 3 else []
        return torch.zeros(channels, *frames, pixels, pixels)
    pixels = side_of(tokens) * int(patch)
    return torch.zeros(channels, pixels, pixels)


def ids_of(config: Mapping[str, Any], inputs: Inputs, tokens: Tokens) -> dict[str, torch.Tensor]:
    """Position ids, one row a token: image tokens for names with `img`, else text tokens."""
    axes = len(config.get("axes_dims_rope") or (0, 0, 0))
    ids = {}
    for name in inputs.shared:
        count = side_of(tokens) ** 2 if "img" in name else tokens.text
        ids[name] = torch.zeros(count, axes)
    return ids
