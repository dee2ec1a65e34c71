"""Complete random pipelines of other families, built offline in seconds: a few MB each, two steps
at SIZE pixels in a moment.

`tiny_pipeline("flux", folder)` writes one. Weights are random; tokenizers know a handful of words.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, DPMSolverMultistepScheduler

from tests import more_pipelines
from tests.tiny import tiny_qwen_pipeline
from tests.tiny_parts import (
    FOUR,
    WIDTH,
    chat_tokenizer,
    clip,
    clip_tokenizer,
    flow,
    llm,
    t5,
    t5_tokenizer,
    transformer,
)


def flux() -> Any:
    clips, t5s = clip_tokenizer(), t5_tokenizer()
    return diffusers.FluxPipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=AutoencoderKL(**FOUR, shift_factor=0.0),
        tokenizer=clips,
        text_encoder=clip(clips, False),
        tokenizer_2=t5s,
        text_encoder_2=t5(t5s),
        transformer=transformer(
            "flux", in_channels=16, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH
        ),
    )


def flux2() -> Any:
    tokenizer = chat_tokenizer()
    return diffusers.Flux2Pipeline(  # the text is read from layers 10, 20 and 30
        scheduler=flow(use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(**FOUR),
        tokenizer=tokenizer,
        text_encoder=llm("Mistral", tokenizer, 30),
        transformer=transformer("flux2", in_channels=16, joint_attention_dim=3 * WIDTH),
    )


def sd3() -> Any:
    clips, t5s = clip_tokenizer(), t5_tokenizer()
    return diffusers.StableDiffusion3Pipeline(
        scheduler=flow(shift=3.0),
        vae=AutoencoderKL(**FOUR, shift_factor=0.0),
        tokenizer=clips,
        text_encoder=clip(clips, True),
        tokenizer_2=clips,
        text_encoder_2=clip(clips, True),
        tokenizer_3=t5s,
        text_encoder_3=t5(t5s, 2 * WIDTH),
        transformer=transformer(
            "sd3", joint_attention_dim=2 * WIDTH, pooled_projection_dim=2 * WIDTH
        ),
    )


def zimage() -> Any:
    tokenizer = chat_tokenizer()
    return diffusers.ZImagePipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=AutoencoderKL(**FOUR, shift_factor=0.0),
        tokenizer=tokenizer,
        text_encoder=llm("Qwen3", tokenizer, 2),
        transformer=transformer("zimage", cap_feat_dim=WIDTH, axes_lens=[1024, 16, 16]),
    )


def pixart() -> Any:
    t5s = t5_tokenizer()
    return diffusers.PixArtSigmaPipeline(
        scheduler=DPMSolverMultistepScheduler(),
        vae=AutoencoderKL(**FOUR),
        tokenizer=t5s,
        text_encoder=t5(t5s),
        transformer=transformer("pixart", caption_channels=WIDTH),
    )


PIPELINES: dict[str, Callable[[], Any]] = {
    "flux": flux,
    "flux2": flux2,
    "sd3": sd3,
    "zimage": zimage,
    "pixart": pixart,
}
MORE: dict[str, Callable[[], Any]] = {
    name: getattr(more_pipelines, name)
    for name in (
        "auraflow",
        "cogview4",
        "dit",
        "hunyuanimage",
        "longcat",
        "lumina2",
        "ovis",
        "sana",
        "wan",
    )
}


def tiny_pipeline(name: str, folder: Path) -> Path:
    """Write the family's tiny pipeline into `folder` and return it."""
    if name == "qwenimage":
        return tiny_qwen_pipeline(folder)
    torch.manual_seed(0)
    (PIPELINES | MORE)[name]().save_pretrained(folder)
    return Path(folder)
