"""How alike two pictures of the same prompt and seed are. Not quality: a student may differ and be
as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..statistics import summary

EQUAL_DB = 100.0  # PSNR of equal pictures, which would be infinite


class Ssim:
    """Structural similarity to the first model's picture, 1 = equal (Wang et al. 2004;
    scikit-image, 7 x 7 windows, RGB).
    """

    pairwise = True

    def score(
        self,
        images: Sequence[Image.Image],
        items: Sequence[dict[str, Any]],
        reference: Sequence[Image.Image],
    ) -> dict[str, Any]:
        from skimage.metrics import structural_similarity

        values = [
            float(
                structural_similarity(
                    np.asarray(b.convert("RGB")), np.asarray(a.convert("RGB")), channel_axis=2
                )
            )
            for a, b in zip(images, reference, strict=True)
        ]
        return {
            **summary(values, items),
            "per_image": values,
            "unit": "SSIM to the first model",
            "direction": "higher = more alike",
        }


class Psnr:
    """Peak signal-to-noise ratio to the first model's picture in dB; equal pictures count as 100."""

    pairwise = True

    def score(
        self,
        images: Sequence[Image.Image],
        items: Sequence[dict[str, Any]],
        reference: Sequence[Image.Image],
    ) -> dict[str, Any]:
        values = [
            self._value(np.asarray(a.convert("RGB"), float), np.asarray(b.convert("RGB"), float))
            for a, b in zip(images, reference, strict=True)
        ]
        return {
            **summary(values, items),
            "per_image": values,
            "unit": "dB to the first model",
            "direction": "higher = more alike",
        }

    @staticmethod
    def _value(a: np.ndarray, b: np.ndarray) -> float:
        error = float(((a - b) ** 2).mean())
        return EQUAL_DB if error == 0 else min(EQUAL_DB, 10 * float(np.log10(255**2 / error)))
