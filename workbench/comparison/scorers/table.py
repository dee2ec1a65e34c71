"""The scorers: one row each. Importing this imports no scorer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...plugins import Lazy, Registry, registry
from ...records import BadInput
from .base import Item, Scorer, fits, unfit

ROWS: dict[str, Lazy] = {
    "scenes": Lazy(
        "workbench.demo.scene_scorer:SCENES",
        about="share of pictures that show exactly what the bundled scenes' prompts say",
    ),
    "ssim": Lazy(
        "workbench.comparison.scorers.similarity:SSIM",
        install="pip install scikit-image",
        about="structural similarity to the first model's picture",
    ),
    "psnr": Lazy(
        "workbench.comparison.scorers.similarity:PSNR",
        about="peak signal-to-noise ratio to the first model's picture",
    ),
    "pixel-error": Lazy(
        "workbench.comparison.scorers.similarity:PIXEL_ERROR",
        about="mean squared difference of the pixels to the first model's picture",
    ),
    "latent-error": Lazy(
        "workbench.comparison.scorers.latents:LATENT_ERROR",
        about="relative squared distance of the final latents to the first model's, same noise",
    ),
    "diversity": Lazy(
        "workbench.comparison.scorers.diversity:DIVERSITY",
        about="distance between the pictures of one prompt; wants --seeds 2 or more",
    ),
    "ocr": Lazy(
        "workbench.comparison.scorers.ocr:OCR",
        install="pip install 'dit-workbench[ocr]'",
        about="share of the item's text that PP-OCRv6 reads in the picture",
    ),
}
DEFAULT = ("scenes", "ssim", "psnr")  # those that fit the suite are used where none is named
SCORERS: Registry[Scorer] = registry("scorer")


def with_files(
    scorers: Mapping[str, Scorer], files: Iterable[str], items: Sequence[Item]
) -> dict[str, Scorer]:
    """The scorers, and those that are commands, from their files. Raises BadInput for a name that is
    taken, and for a scorer that does not fit the items.
    """
    chosen = dict(scorers)
    for file in files:
        from .ready import load_scorer

        scorer = load_scorer(Path(file))
        if scorer.name in chosen or scorer.name in SCORERS:
            raise BadInput(f"{file}: scorer {scorer.name}", "a name of its own", "rename it")
        if not fits(scorer, items):
            raise unfit(scorer.name, scorer)
        chosen[scorer.name] = scorer
    return chosen


def choose_scorers(names: Iterable[str] | None, items: Sequence[Item]) -> dict[str, Scorer]:
    """Scorers by name; where none is named, those of DEFAULT that fit the items.

    Raises BadInput for an unknown scorer and for a named one that does not fit.
    """
    if names is None:
        return {name: SCORERS[name] for name in DEFAULT if fits(SCORERS[name], items)}
    scorers = {}
    for name in names:
        if name not in SCORERS:
            check_not_ready(name)
        scorers[name] = SCORERS[name]
    for name, scorer in scorers.items():
        if not fits(scorer, items):
            raise unfit(name, scorer)
    return scorers


def check_not_ready(name: str) -> None:
    """Raises BadInput for a ready scorer, which wants a file."""
    from .ready import READY, wants_file

    if name in READY:
        raise wants_file(name)
