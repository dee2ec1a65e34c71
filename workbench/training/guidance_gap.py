"""The guidance gap: a model's prediction with the prompt minus the one without it, on the same
noisy latents.

Classifier-free guidance multiplies it: u + g (c - u). Distillation on the conditional branch alone
lets a student's gap collapse (DASH, arXiv 2606.00798), and the same scale then guides it less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .batch import Batch


@dataclass(frozen=True)
class GuidanceGap:
    """A model's gap beside its teacher's.

    ratio: the mean of the gaps' norms over that of the teacher's; 1 = the teacher's, below 1 =
    collapsed, above 1 = guided more. cosine: mean cosine between the two gaps; 1 = the same
    direction. Both are means over samples.
    """

    ratio: float
    cosine: float

    @classmethod
    def of_sums(cls, sums: Sequence[float]) -> GuidanceGap:
        """From the values of `gap_sums`, added up over parts of the samples."""
        own, teachers, cosines, count = sums
        return cls(own / max(teachers, 1e-30), cosines / max(count, 1))


@torch.no_grad()
def gap_sums(own: torch.Tensor, teachers: torch.Tensor) -> list[float]:
    """Sums over samples, which can be added over parts of them: of the norm of the gap, of that of
    the teacher's, of the cosine between them, and of 1.

    own, teachers: gaps (B, ...).
    """
    a = own.double().flatten(1)
    b = teachers.double().flatten(1)
    cosines = torch.nn.functional.cosine_similarity(a, b, dim=1)
    sums = (a.norm(dim=1).sum(), b.norm(dim=1).sum(), cosines.sum())
    return [*(float(value) for value in sums), float(len(a))]


@torch.no_grad()
def gap_of(model: nn.Module, batch: Batch, *, guided: bool = False) -> torch.Tensor:
    """c - u of a batch with empty prompts, like its latents. guided: of a teacher whose guided
    prediction is the target, that prediction stands for c.
    """
    conditional = batch.predict(model)
    if guided:
        conditional = batch.guided(model, conditional)
    return conditional - batch.without_prompts.predict(model)
