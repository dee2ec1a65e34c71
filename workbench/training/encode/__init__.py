"""Filling a latent cache with a teacher's own pipeline: from prompts alone, or from pictures with
captions.
"""

from __future__ import annotations

from .calls import conditions, first_call
from .filling import cache_images, cache_prompts, close
from .latents import ENCODERS
from .pictures import Packed, image_folder, pictures_in, shard_pictures

__all__ = [
    "ENCODERS",
    "Packed",
    "cache_images",
    "cache_prompts",
    "close",
    "conditions",
    "first_call",
    "image_folder",
    "pictures_in",
    "shard_pictures",
]
