"""Published sizes, counted on the meta device: the rows' parts against an independent count."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from workbench import models, plans
from workbench.families import FAMILIES
from workbench.records import Span

M = 1e6
# Config, then per stack: parameters of block 0, and of what the image and text streams' attention,
# MLP and modulation hold, in millions, counted before there was a table. Configs that are not the
# class defaults are the published ones as remembered.
PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, tuple[float, dict[str, float]]]]] = {
    "qwenimage": (
        "qwenimage",
        {"num_layers": 1},
        {
            "transformer_blocks": (
                339.83,
                {
                    "attn": 18.88,
                    "mlp": 75.51,
                    "modulation": 56.64,
                    "text.attn": 18.88,
                    "text.mlp": 75.51,
                    "text.modulation": 56.64,
                    "text.output": 132.15,
                },
            )
        },
    ),
    "qwenimage21": (
        "qwenimage21",
        {"num_layers": 1},
        {"transformer_blocks": (218.10, {"attn": 67.11, "mlp": 150.99})},
    ),
    "flux": (
        "flux",
        {"num_layers": 1, "num_single_layers": 1},
        {
            "transformer_blocks": (
                339.83,
                {"mlp": 75.51, "modulation": 56.64, "text.mlp": 75.51, "text.modulation": 56.64},
            ),
            "single_transformer_blocks": (141.59, {"modulation": 28.32}),
        },
    ),
    "flux2": (
        "flux2",
        {"num_layers": 1, "num_single_layers": 1},
        {
            "transformer_blocks": (981.47, {"mlp": 339.7, "text.mlp": 339.7}),
            "single_transformer_blocks": (490.73, {"attn": 151.0, "mlp": 339.7}),
        },
    ),
    "sd3.5-large": (
        "sd3",
        {
            "num_layers": 2,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "qk_norm": "rms_norm",
        },
        {
            "transformer_blocks": (
                213.00,
                {"mlp": 47.33, "modulation": 35.50, "text.mlp": 47.33, "text.modulation": 35.50},
            )
        },
    ),
    "sd3.5-medium": (
        "sd3",
        {
            "num_layers": 2,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "qk_norm": "rms_norm",
            "dual_attention_layers": (0,),
        },
        {
            "transformer_blocks": (
                101.51,
                {"mlp": 18.88, "modulation": 21.25, "text.mlp": 18.88, "text.modulation": 14.16},
            )
        },
    ),
    "hunyuanimage": (
        "hunyuanimage",
        {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1},
        {
            "transformer_blocks": (462.53, {"mlp": 102.78, "modulation": 77.09}),
            "single_transformer_blocks": (192.72, {}),
        },
    ),
    "auraflow": (
        "auraflow",
        {"num_mmdit_layers": 1, "num_single_dit_layers": 1},
        {
            "joint_transformer_blocks": (339.74, {"mlp": 75.50, "text.mlp": 75.50}),
            "single_transformer_blocks": (169.87, {"attn": 37.75, "mlp": 75.50}),
        },
    ),
    "cogview4": (
        "cogview4",
        {"num_layers": 1, "num_attention_heads": 32, "attention_head_dim": 128},
        {"transformer_blocks": (226.58, {"attn": 67.13, "mlp": 134.24, "modulation": 25.21})},
    ),
    "zimage": (
        "zimage",
        {"n_layers": 1, "n_refiner_layers": 1},
        {"layers": (180.91, {"attn": 58.99, "mlp": 117.97, "modulation": 3.95})},
    ),
    "lumina2": (
        "lumina2",
        {"num_layers": 1, "num_refiner_layers": 1},
        {"layers": (87.31, {"attn": 14.16, "mlp": 63.71, "modulation": 9.45})},
    ),
    "sana": ("sana", {"num_layers": 1}, {"transformer_blocks": (77.92, {"mlp": 37.76})}),
    "pixart": (
        "pixart",
        {"num_layers": 1, "caption_channels": 4096},
        {"transformer_blocks": (21.26, {"mlp": 10.62})},
    ),
    "dit": ("dit", {"num_layers": 1}, {"transformer_blocks": (26.68, {"mlp": 10.62})}),
    "ovis": (
        "ovis",
        {"num_layers": 1, "num_single_layers": 1},
        {
            "transformer_blocks": (415.35, {"mlp": 113.27, "modulation": 56.64}),
            "single_transformer_blocks": (179.35, {}),
        },
    ),
    "longcat": (
        "longcat",
        {"num_layers": 1, "num_single_layers": 1},
        {"transformer_blocks": (339.83, {"mlp": 75.51}), "single_transformer_blocks": (141.59, {})},
    ),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_sizes(model: str) -> None:
    name, config, stacks = PUBLISHED[model]
    with torch.device("meta"):
        teacher = models.describe_module(getattr(diffusers, FAMILIES[name].transformer)(**config))
    for path, (block, parts) in stacks.items():
        stack, row = teacher.stack(path), FAMILIES[name].stack(path)
        assert stack.block_parameters(0) / M == pytest.approx(block, abs=0.01)
        for part, wanted in parts.items():
            rest = plans.span_parameters(Span(blocks=(0, 0), drop=(part,)), stack, row)
            assert (stack.block_parameters(0) - rest) / M == pytest.approx(wanted, abs=0.06), part


def test_qwen_image_exactly() -> None:
    """20,430,401,088 parameters, 339,831,296 a block, half of them text; counted from the config
    alone.
    """
    with torch.device("meta"):
        model = diffusers.QwenImageTransformer2DModel()
    info = plans.teacher_info(models.describe_module(model))
    assert (
        info["parameters"] == 20_430_401_088
        and info["stacks"][0]["block_parameters"] == 339_831_296
    )
    assert info["streams"] == {"image": 60 * 169_915_648, "text": 60 * 169_915_648, "shared": 0}
    assert info["parts"]["mlp"] == info["parts"]["text.mlp"] == 60 * (8 * 3072**2 + 5 * 3072)
    assert info["memory"]["bf16"] == 2 * info["parameters"]
