"""The smallest calls of transformers whose conditioning depends on the timestep alone: one image
token, one text token, all zero.

Named by the families' rows (`Conditioning.arguments`): from a config and the timestep argument (T,)
to the arguments of one call with a sample per timestep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Arguments = dict[str, Any]


def tokens(config: Mapping[str, Any], timesteps: torch.Tensor) -> Arguments:
    """Latents packed as tokens (T, 1, C) and text (T, 1, D)."""
    count = len(timesteps)
    return {
        "hidden_states": torch.zeros(count, 1, config["in_channels"]),
        "encoder_hidden_states": torch.zeros(count, 1, config["joint_attention_dim"]),
        "timestep": timesteps,
    }


def packed(config: Mapping[str, Any], timesteps: torch.Tensor) -> Arguments:
    """Like FLUX.1, without what is pooled: position ids of three axes."""
    ids = torch.zeros(1, 3)
    return {**tokens(config, timesteps), "img_ids": ids, "txt_ids": ids}


def qwen(config: Mapping[str, Any], timesteps: torch.Tensor) -> Arguments:
    """Qwen-Image: a picture of one token."""
    return {**tokens(config, timesteps), "img_shapes": [[(1, 1, 1)]] * len(timesteps)}


def pictures(config: Mapping[str, Any], timesteps: torch.Tensor) -> Arguments:
    """AuraFlow: latents as a picture of one patch."""
    side = config["patch_size"]
    text = torch.zeros(len(timesteps), 1, config["joint_attention_dim"])
    return {
        "hidden_states": torch.zeros(len(timesteps), config["in_channels"], side, side),
        "encoder_hidden_states": text,
        "timestep": timesteps,
    }


def hunyuan(config: Mapping[str, Any], timesteps: torch.Tensor) -> Arguments:
    """HunyuanImage: a picture or a film of one patch."""
    count = len(timesteps)
    return {
        "hidden_states": torch.zeros(count, config["in_channels"], *config["patch_size"]),
        "encoder_hidden_states": torch.zeros(count, 1, config["text_embed_dim"]),
        "encoder_attention_mask": torch.ones(count, 1),
        "timestep": timesteps,
    }
