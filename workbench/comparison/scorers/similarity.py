"""How alike two pictures of the same prompt and seed are.

Not quality: a student's picture may differ from the teacher's and be as good.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from .base import Images, Item, Scorer

EQUAL_DB = 100.0  # PSNR of equal pictures, which would be infinite
Pixels = np.ndarray  # uint8 (H, W, 3)


class Ssim(Scorer):
    """Structural similarity to the first model's picture, 7 x 7 windows, RGB; 1 = equal."""

    name = "ssim"
    unit = "SSIM to the first model"
    direction = "higher = more alike"
    source = "Wang et al. 2004, in scikit-image"
    needs_reference = True

    def score(self, images: Images, items: Sequence[Item], reference: Images) -> list[float]:
        return [
            float(structural_similarity(pixels(first), pixels(own), channel_axis=2))
            for own, first in zip(images, reference, strict=True)
        ]


class Psnr(Scorer):
    """Peak signal-to-noise ratio to the first model's picture in dB; at most 100, if equal."""

    name = "psnr"
    unit = "dB to the first model"
    direction = "higher = more alike"
    source = "scikit-image"
    needs_reference = True

    def score(self, images: Images, items: Sequence[Item], reference: Images) -> list[float]:
        pairs = zip(images, reference, strict=True)
        return [psnr(pixels(own), pixels(first)) for own, first in pairs]


class PixelError(Scorer):
    """Mean squared difference of pixels in 0..1 to the first model's picture; 0 = equal."""

    name = "pixel-error"
    unit = "mean squared difference to the first model, pixels 0 to 1"
    direction = "lower = more alike"
    source = "numpy"
    needs_reference = True

    def score(self, images: Images, items: Sequence[Item], reference: Images) -> list[float]:
        pairs = zip(images, reference, strict=True)
        return [squared_distance(pixels(own), pixels(first)) for own, first in pairs]


def squared_distance(one: Pixels, two: Pixels) -> float:
    """Mean squared difference of two pictures, pixels in 0..1."""
    return float(np.square((one.astype(np.float64) - two) / 255).mean())


def psnr(own: Pixels, first: Pixels) -> float:
    if np.array_equal(own, first):
        return EQUAL_DB
    return min(EQUAL_DB, float(peak_signal_noise_ratio(first, own)))


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


SSIM = Ssim()
PSNR = Psnr()
PIXEL_ERROR = PixelError()
