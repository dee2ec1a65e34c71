"""Scorers: a number per picture, higher = better, and its mean over prompts. One file per scorer,
one row of SCORERS.

A scorer is an object with `score(images, items) -> {"overall", "low", "high", <category>: ...,
"per_image": [...]}`; one with `pairwise = True` also takes `reference`, the first model's pictures
of the same prompts and seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from PIL import Image

from ...records import BadInput
from ..statistics import summary
from .similarity import Psnr, Ssim

Images = Sequence[Image.Image]
Items = Sequence[dict[str, Any]]


class Scorer(Protocol):
    def score(self, images: Images, items: Items) -> dict[str, Any]: ...


class PairwiseScorer(Protocol):
    pairwise: bool

    def score(self, images: Images, items: Items, reference: Images) -> dict[str, Any]: ...


AnyScorer = Scorer | PairwiseScorer
SCORERS: dict[str, AnyScorer] = {"ssim": Ssim(), "psnr": Psnr()}


def named(names: Iterable[str]) -> dict[str, AnyScorer]:
    """Registered scorers by name."""
    out = {}
    for name in names:
        if name not in SCORERS:
            raise BadInput(f"scorer {name!r}", "one of " + ", ".join(SCORERS), "choose one")
        out[name] = SCORERS[name]
    return out


def run(scorer: AnyScorer, images: Images, items: Items, reference: Images) -> dict[str, Any]:
    """A scorer's scores; an interval is added where it gives per_image and none."""
    pairwise = getattr(scorer, "pairwise", False)
    scores: dict[str, Any] = scorer.score(images, items, *([reference] if pairwise else []))
    if "per_image" in scores and not {"overall", "low", "high"} <= set(scores):
        scores = {**summary(scores["per_image"], items), **scores}
    return scores
