"""Pictures as the latents each family's transformer takes: the VAE's mode, normalised and packed as
the pipeline does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

from ... import models
from ...families import FAMILIES
from ...models import Pipeline
from ...plugins.registry import imported
from ...records import BadInput
from .pipeline_calls import Sides


def pixels(pipe: Pipeline, images: Sequence[Image.Image], sides: Sides) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1]; what does not fit the shape is cut off at both ends alike."""
    height, width = sides
    fitted = [ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS) for image in images]
    processor = getattr(pipe, "image_processor", None) or VaeImageProcessor()
    return processor.preprocess(fitted, height, width).to(pipe.vae.device, pipe.vae.dtype)


def qwen(pipe: Pipeline, picture: torch.Tensor) -> torch.Tensor:
    latents = pipe.vae.encode(picture[:, :, None]).latent_dist.mode()  # (B, z, 1, h, w)
    mean, std = (
        torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1, 1)
        for values in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    count, channels, _, height, width = latents.shape
    return pipe._pack_latents((latents - mean) / std, count, channels, height, width)  # (B, N, 4 z)


def scaled(pipe: Pipeline, picture: torch.Tensor) -> torch.Tensor:
    latents = pipe.vae.encode(picture).latent_dist.mode()
    # (B, z, h, w)
    shift = getattr(pipe.vae.config, "shift_factor", None) or 0.0
    return (latents - shift) * pipe.vae.config.scaling_factor


def deep(pipe: Pipeline, picture: torch.Tensor) -> torch.Tensor:
    """Of a deep-compression VAE, whose code is not a distribution."""
    return pipe.vae.encode(picture).latent * pipe.vae.config.scaling_factor  # (B, z, h, w)


def flux(pipe: Pipeline, picture: torch.Tensor) -> torch.Tensor:
    latents = scaled(pipe, picture)
    return pipe._pack_latents(latents, *latents.shape)  # (B, N, 4 z)


def flux2(pipe: Pipeline, picture: torch.Tensor) -> torch.Tensor:
    return pipe._pack_latents(pipe._encode_vae_image(picture, None))  # (B, N, 4 z)


Encode = Callable[[Pipeline, torch.Tensor], torch.Tensor]


def encoder_of(pipe: Pipeline) -> Encode:
    """How the pipeline's family encodes pictures. Raises BadInput where it has no encoder."""
    family = models.family_of(pipe.transformer)
    if not family.encoder:
        raise BadInput(
            f"family {family.name} without a picture encoder",
            "one of " + ", ".join(name for name, row in FAMILIES.items() if row.encoder),
            "distill on prompts instead",
        )
    encoder: Encode = imported(family.encoder)
    return encoder


@torch.no_grad()
def encoded(pipe: Pipeline, images: Sequence[Image.Image], sides: Sides) -> torch.Tensor:
    """Latents of pictures as the transformer takes them, float32 on the CPU; (B, N, C) or
    (B, C, H, W).
    """
    return encoder_of(pipe)(pipe, pixels(pipe, images, sides)).float().cpu()
