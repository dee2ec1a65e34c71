"""What a scorer is, and how its values become a Score.

A scorer of your own, in a file that --plugin names:

    class Brightness(Scorer):
        name, unit = "brightness", "mean grey level, 0 to 255"

        def score(self, images, items, reference):
            return [float(np.asarray(image.convert("L")).mean()) for image in images]

    workbench.register("scorer", "brightness", Brightness())
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from PIL import Image

from ...records import BadInput, Score
from ..statistics import Item, score_of

Images = Sequence[Image.Image]


class Scorer(ABC):
    """Gives every picture a number.

    takes: "pictures", or "latents": the arrays that the pictures were decoded from, float32, in the
    pipeline's own shape. unit, direction: of the number; direction begins with "higher" or "lower".
    source: the paper or package it follows. needs_reference: it compares with the first model's
    picture, so it measures likeness and not quality. passes: its values are 0 and 1. item_keys: what
    each item of the suite must have, beside its prompt. least_seeds: pictures of a prompt that it
    needs.
    """

    name: ClassVar[str]
    takes: ClassVar[Literal["pictures", "latents"]] = "pictures"
    unit: ClassVar[str] = ""
    direction: ClassVar[str] = "higher = better"
    source: ClassVar[str] = ""
    needs_reference: ClassVar[bool] = False
    passes: ClassVar[bool] = False
    item_keys: ClassVar[tuple[str, ...]] = ()
    least_seeds: ClassVar[int] = 1

    def prepare(self, device: str) -> None:  # noqa: B027  (a hook; most scorers need nothing)
        """Load weights. Called once, before any picture is sampled, so that what is missing is
        reported at once.
        """

    @abstractmethod
    def score(
        self, images: Images, items: Sequence[Item], reference: Images
    ) -> Sequence[float] | Score:
        """A value per picture; or a Score, where only a whole set can be judged.

        images: of one model, prompt by prompt and seed by seed. items: the suite's item of each
        picture. reference: the first model's pictures of the same prompts and seeds.
        """


def fits(scorer: Scorer, items: Sequence[Item]) -> bool:
    """Whether every item has what the scorer needs."""
    return all(item.keys() >= set(scorer.item_keys) for item in items)


def check_seeds(scorers: Mapping[str, Scorer], seeds: int) -> None:
    """Raises BadInput for a scorer that compares more pictures of a prompt than there are."""
    for name, scorer in scorers.items():
        if seeds < scorer.least_seeds:
            raise BadInput(
                f"scorer {name} with {seeds} seed{'s' if seeds > 1 else ''} per prompt",
                f"at least {scorer.least_seeds}",
                f"add --seeds {scorer.least_seeds}",
            )


def unfit(name: str, scorer: Scorer) -> BadInput:
    """The error for a scorer whose items lack a key."""
    keys = ", ".join(scorer.item_keys)
    return BadInput(
        f"scorer {name} for a suite whose items have no {keys}",
        f"items with {keys}",
        "leave it out of --scorers, or choose another suite",
    )


def score_pictures(
    scorer: Scorer, images: Images, items: Sequence[Item], reference: Images
) -> Score:
    """A scorer's Score of one model. Raises BadInput for values that are missing or not finite."""
    values = scorer.score(images, items, reference)
    if isinstance(values, Score):
        return values
    finite = sum(map(math.isfinite, values))
    if len(values) != len(images) or finite < len(values):
        raise BadInput(
            f"scorer {scorer.name} gave {len(values)} values for {len(images)} pictures, "
            f"{finite} of them finite",
            "a finite number for each picture",
            "fix the scorer, or leave it out",
        )
    return score_of(
        [float(value) for value in values],
        items,
        passes=scorer.passes,
        unit=scorer.unit,
        direction=scorer.direction,
    )
