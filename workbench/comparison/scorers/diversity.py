"""How different the pictures of one prompt are from each other: what a compressed model loses first
and no score of single pictures shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import Images, Item, Scorer
from .similarity import pixels, squared_distance


class Diversity(Scorer):
    """Of each picture, the mean root mean square distance to the same prompt's pictures of other
    seeds, pixels in 0..1. Its mean over a prompt is the mean over all pairs; 0 = all equal.

    Distances of pixels, not of what is seen, as those of features (pairwise LPIPS) would be.
    """

    name = "diversity"
    unit = "RMS distance between pictures of one prompt, pixels 0 to 1"
    direction = "higher = more diverse"
    source = "pairwise distances as in BicycleGAN (arXiv 1711.11586), of pixels"
    least_seeds = 2

    def score(self, images: Images, items: Sequence[Item], reference: Images) -> list[float]:
        of_prompt: dict[str, list[int]] = {}
        for number, item in enumerate(items):
            of_prompt.setdefault(str(item.get("index", item["prompt"])), []).append(number)
        values = [0.0] * len(images)
        for numbers in of_prompt.values():
            arrays = {number: pixels(images[number]) for number in numbers}
            for number in numbers:
                others = [arrays[other] for other in numbers if other != number]
                distances = [squared_distance(arrays[number], other) ** 0.5 for other in others]
                values[number] = sum(distances) / max(1, len(distances))
        return values


DIVERSITY = Diversity()
