"""The models of docs/at-scale.md: their published configs, as far as they differ from the defaults
of diffusers' and transformers' classes. No weights are needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from workbench.models import describe  # noqa: E402
from workbench.records import Plan, Span, Teacher  # noqa: E402

BF16 = 2  # bytes of a number


@dataclass(frozen=True)
class Published:
    """A model as it is on the Hub.

    config: of the transformer. size: of what is drawn. steps: of its sampler. branches: forwards
    per step: 2 with classifier-free guidance. encoders, vae: make what else is in the pipeline.
    data: what the page's commands train on.
    """

    title: str
    hub: str
    transformer: str
    size: str
    steps: int
    branches: int
    config: dict[str, Any] = field(default_factory=dict)
    encoders: tuple[Callable[[], nn.Module], ...] = ()
    vae: Callable[[], nn.Module] | None = None
    data: str = "pictures"

    def teacher(self, folder: Path) -> Teacher:
        """What `workbench info` makes of its config."""
        file = folder / "config.json"
        file.write_text(json.dumps({"_class_name": self.transformer, **self.config}))
        return describe(file, self.hub).model_copy(update={"dtype": "bfloat16"})

    def bytes_beside(self) -> tuple[int, int]:
        """Bytes of the text encoders and of the VAE, in bfloat16."""
        with torch.device("meta"):
            encoders = sum(count(make()) for make in self.encoders)
            others = count(self.vae()) if self.vae else 0
        return BF16 * encoders, BF16 * others


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def half_of(teacher: Teacher) -> Plan:
    """Pairs of neighbours, one block each: as many blocks as the recipes keep."""
    stacks = {}
    for stack in teacher.stacks:
        pairs = range(0, stack.depth, 2)
        stacks[stack.path] = [Span(blocks=(i, min(i + 1, stack.depth - 1))) for i in pairs]
    return Plan(teacher=teacher.name, family=teacher.family, stacks=stacks)


# --- text encoders and VAEs -----------------------------------------------------------------------


def qwen25_vl_7b() -> nn.Module:
    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    config.tie_word_embeddings = False
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


def t5_xxl() -> nn.Module:
    return transformers.T5EncoderModel(transformers.T5Config(**XXL, vocab_size=32128))


def umt5_xxl() -> nn.Module:
    return transformers.UMT5EncoderModel(transformers.UMT5Config(**XXL, vocab_size=256384))


def clip_l() -> nn.Module:
    config = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    return transformers.CLIPTextModel(config)


def clip_g() -> nn.Module:
    config = transformers.CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
    )
    return transformers.CLIPTextModelWithProjection(config)


def kl_vae() -> nn.Module:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
    )


SD35 = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "attention_head_dim": 64,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}
MODELS = {
    "qwen-image": Published(
        "Qwen-Image",
        "Qwen/Qwen-Image",
        "QwenImageTransformer2DModel",
        "1024x1024",
        50,
        2,
        encoders=(qwen25_vl_7b,),
        vae=diffusers.AutoencoderKLQwenImage,
    ),
    "flux-dev": Published(
        "FLUX.1-dev",
        "black-forest-labs/FLUX.1-dev",
        "FluxTransformer2DModel",
        "1024x1024",
        28,
        1,
        {"guidance_embeds": True},
        (t5_xxl, clip_l),
        kl_vae,
    ),
    "sd3.5-large": Published(
        "SD3.5-Large",
        "stabilityai/stable-diffusion-3.5-large",
        "SD3Transformer2DModel",
        "1024x1024",
        28,
        2,
        SD35,
        (t5_xxl, clip_l, clip_g),
        kl_vae,
    ),
    "wan-14b": Published(
        "Wan 2.1 14B",
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "WanTransformer3DModel",
        "832x480",
        50,
        2,
        encoders=(umt5_xxl,),
        vae=diffusers.AutoencoderKLWan,
        data="prompts.txt",  # of videos the data sources read none
    ),
}
