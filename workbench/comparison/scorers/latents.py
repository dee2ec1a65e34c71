"""How far a student's final latents are from the teacher's, from the same noise: the error before the
VAE, which hides some of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import Item, Scorer

Latents = np.ndarray  # float32, of one picture, in the pipeline's own shape


class LatentError(Scorer):
    """Squared distance of the final latents to the first model's, over the squared norm of those;
    0 = equal.
    """

    name = "latent-error"
    takes = "latents"
    unit = "squared distance of final latents to the first model's, over their squared norm"
    direction = "lower = more alike"
    source = "numpy"
    needs_reference = True

    def score(self, images: Any, items: Sequence[Item], reference: Any) -> list[float]:
        """images, reference: Latents."""
        return [relative_error(own, first) for own, first in zip(images, reference, strict=True)]


def relative_error(own: Latents, first: Latents) -> float:
    """||own - first||^2 / ||first||^2, both of one shape; infinite where only `first` is all 0."""
    distance = float(np.square(own.astype(np.float64) - first).sum())
    norm = float(np.square(first.astype(np.float64)).sum())
    if distance == 0:
        return 0.0
    return distance / norm if norm > 0 else float("inf")


LATENT_ERROR = LatentError()
