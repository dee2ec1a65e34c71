"""The row `scenes` of the scorers: passes and fails of the bundled scenes' pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..comparison.scorers.base import Images, Item, Scorer
from .scenes import Scene
from .scorer import score_image


class SceneScorer(Scorer):
    """1 where a picture shows exactly what its prompt says, else 0."""

    name = "scenes"
    unit = "share of pictures that show what the prompt says"
    source = "in the spirit of GenEval (arXiv 2310.11513); exact, without a network"
    passes = True
    item_keys = ("scene",)

    def score(self, images: Images, items: Sequence[Item], reference: Images) -> list[float]:
        values = []
        for image, item in zip(images, items, strict=True):
            scene = Scene.from_dict(item["scene"])
            values.append(float(score_image(np.asarray(image.convert("RGB")), scene).ok))
        return values


SCENES = SceneScorer()
