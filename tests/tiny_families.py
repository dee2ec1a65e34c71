"""A tiny random transformer of every family, and inputs for it. A new family needs one entry in
each of the two tables.

Blocks are few but more than two a stack, widths unequal where the class allows it; image and text
lengths differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch

from tests.tiny import randomise
from workbench.families import FAMILIES

BATCH, TEXT, TEXT_DIM = 2, 5, 8  # samples, text tokens, width of the text embedding
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
ROPE = {"axes_dims_rope": (4, 6, 6)}
TWO_STACKS = {"num_layers": 3, "num_single_layers": 3}

CONFIGS: dict[str, dict[str, Any]] = {
    "qwenimage": {
        **HEADS,
        **ROPE,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 1,
        "num_layers": 4,
        "joint_attention_dim": TEXT_DIM,
    },
    "qwenimage21": {
        **HEADS,
        **ROPE,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "context_in_dim": TEXT_DIM,
    },
    "flux": {
        **HEADS,
        **ROPE,
        **TWO_STACKS,
        "in_channels": 4,
        "joint_attention_dim": TEXT_DIM,
        "pooled_projection_dim": 6,
        "guidance_embeds": True,
    },
    "flux2": {
        **HEADS,
        **TWO_STACKS,
        "axes_dims_rope": (4, 4, 4, 4),
        "in_channels": 4,
        "joint_attention_dim": TEXT_DIM,
        "timestep_guidance_channels": 16,
    },
    "sd3": {
        **HEADS,
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 5,
        "joint_attention_dim": TEXT_DIM,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 6,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0, 1, 3),
        "qk_norm": "rms_norm",
    },
    "hunyuanimage": {
        **HEADS,
        **TWO_STACKS,
        "in_channels": 4,
        "out_channels": 4,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_DIM,
        "rope_axes_dim": (8, 8),
    },
    "auraflow": {
        **HEADS,
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "num_mmdit_layers": 3,
        "num_single_dit_layers": 3,
        "joint_attention_dim": TEXT_DIM,
        "caption_projection_dim": 32,
        "pos_embed_max_size": 64,
    },
    "cogview4": {
        **HEADS,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "text_embed_dim": TEXT_DIM,
        "time_embed_dim": 6,
        "condition_dim": 4,
        "sample_size": 8,
        "rope_axes_dim": (8, 8),
    },
    "zimage": {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 3,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": TEXT_DIM,
        "axes_dims": [4, 6, 6],
        "axes_lens": [64, 16, 16],
    },
    "lumina2": {
        "sample_size": 8,
        "in_channels": 4,
        "hidden_size": 32,
        "num_layers": 3,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "num_kv_heads": 1,
        "multiple_of": 8,
        "axes_dim_rope": (4, 6, 6),
        "axes_lens": (16, 16, 16),
        "cap_feat_dim": TEXT_DIM,
    },
    "sana": {
        **HEADS,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": TEXT_DIM,
        "sample_size": 8,
    },
    "pixart": {
        **HEADS,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 3,
        "cross_attention_dim": 32,
        "sample_size": 8,
        "caption_channels": TEXT_DIM,
    },
    "dit": {
        **HEADS,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 4,
        "sample_size": 8,
        "num_embeds_ada_norm": 10,
    },
    "wan": {
        **HEADS,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": TEXT_DIM,
        "freq_dim": 16,
        "ffn_dim": 48,
        "num_layers": 3,
        "rope_max_seq_len": 16,
    },
    "longcat": {
        **HEADS,
        **ROPE,
        **TWO_STACKS,
        "in_channels": 4,
        "joint_attention_dim": TEXT_DIM,
        "pooled_projection_dim": 6,
    },
    "ovis": {
        **HEADS,
        **ROPE,
        **TWO_STACKS,
        "in_channels": 4,
        "out_channels": 4,
        "joint_attention_dim": TEXT_DIM,
    },
}

Draw = Callable[..., torch.Tensor]


def packed(draw: Draw, axes: int = 3, **more: Any) -> dict[str, Any]:
    """Inputs of FLUX and its kin: 6 image tokens, position ids of `axes` numbers."""
    return {
        "hidden_states": draw(BATCH, 6, 4),
        "encoder_hidden_states": draw(BATCH, TEXT, TEXT_DIM),
        "img_ids": torch.arange(6.0)[:, None].expand(6, axes),
        "txt_ids": torch.zeros(TEXT, axes),
        **more,
    }


def picture(draw: Draw, *size: int, **more: Any) -> dict[str, Any]:
    """Inputs of classes that take latents as pictures."""
    return {
        "hidden_states": draw(BATCH, 4, *size),
        "encoder_hidden_states": draw(BATCH, TEXT, TEXT_DIM),
        **more,
    }


INPUTS: dict[str, Callable[[Draw], dict[str, Any]]] = {
    "qwenimage": lambda draw: {
        "hidden_states": draw(BATCH, 6, 4),
        "encoder_hidden_states": draw(BATCH, TEXT, TEXT_DIM),
        "img_shapes": [[(1, 2, 3)]] * BATCH,
    },
    "qwenimage21": lambda draw: {
        "hidden_states": draw(BATCH, 8, 4),
        "encoder_hidden_states": draw(BATCH, TEXT, TEXT_DIM),
        "img_shapes": [[(1, 2, 4)]] * BATCH,
        "img_mask": torch.tensor([[False] * TEXT + [True] * 2] * BATCH),
    },
    "flux": lambda draw: packed(
        draw, pooled_projections=draw(BATCH, 6), guidance=torch.full((BATCH,), 3.5)
    ),
    "flux2": lambda draw: packed(draw, axes=4, guidance=torch.full((BATCH,), 3.5)),
    "sd3": lambda draw: picture(draw, 4, 6, pooled_projections=draw(BATCH, 6)),
    "hunyuanimage": lambda draw: picture(
        draw, 2, 3, encoder_attention_mask=torch.ones(BATCH, TEXT)
    ),
    "auraflow": lambda draw: picture(draw, 4, 6),
    "cogview4": lambda draw: picture(
        draw,
        4,
        6,
        **dict.fromkeys(
            ("original_size", "target_size", "crop_coords"), torch.full((BATCH, 2), 32.0)
        ),
    ),
    "zimage": lambda draw: {
        "x": [draw(4, 1, 4, 6) for _ in range(BATCH)],
        "cap_feats": [draw(TEXT, TEXT_DIM) for _ in range(BATCH)],
    },
    "lumina2": lambda draw: picture(
        draw, 4, 6, encoder_attention_mask=torch.ones(BATCH, TEXT, dtype=torch.long)
    ),
    "sana": lambda draw: picture(draw, 2, 3),
    "pixart": lambda draw: picture(
        draw, 4, 4, added_cond_kwargs={"resolution": None, "aspect_ratio": None}
    ),
    "dit": lambda draw: {
        "hidden_states": draw(BATCH, 4, 4, 4),
        "class_labels": torch.tensor([1, 2]),
    },
    "wan": lambda draw: picture(draw, 1, 4, 6),
    "longcat": packed,
    "ovis": packed,
}
TIMESTEP = {"zimage": "t"}  # the argument's name where it is not `timestep`


def family_model(name: str, seed: int = 0) -> torch.nn.Module:
    """A random transformer of the family, in eval mode, without gradients."""
    model = getattr(diffusers, FAMILIES[name].transformer)(**CONFIGS[name])
    randomise(model, seed)
    return model.requires_grad_(False).eval()


def family_inputs(name: str, seed: int = 0, timestep: float = 0.5) -> dict[str, Any]:
    """Arguments of one call of `family_model`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = INPUTS[name](lambda *shape: torch.randn(*shape, generator=generator))
    return {
        **drawn,
        TIMESTEP.get(name, "timestep"): torch.full((BATCH,), timestep),
        "return_dict": False,
    }
