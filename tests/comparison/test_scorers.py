"""Scorers of pictures against a second way of computing them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from workbench.comparison.scorers.base import check_seeds
from workbench.comparison.scorers.diversity import DIVERSITY
from workbench.comparison.scorers.latents import relative_error
from workbench.comparison.scorers.similarity import PIXEL_ERROR, PSNR
from workbench.comparison.statistics import score_of

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)) for _ in range(6)]
# two prompts, three seeds each; both prompts have the same words
ITEMS = [{"prompt": "a", "index": number // 3} for number in range(6)]


def test_diversity_is_the_mean_over_all_pairs_of_a_prompt() -> None:
    values = DIVERSITY.score(PICTURES, ITEMS, [])
    pairs = []
    for first in (0, 3):
        for one, two in combinations(range(first, first + 3), 2):
            a, b = (np.asarray(PICTURES[number], dtype=float) / 255 for number in (one, two))
            pairs.append(np.linalg.norm(a - b) / np.sqrt(a.size))
    assert score_of(values, ITEMS).overall == pytest.approx(np.mean(pairs))
    assert DIVERSITY.score([PICTURES[0]] * 6, ITEMS, []) == [0.0] * 6


def test_pixel_error_is_what_psnr_is_the_logarithm_of() -> None:
    reference = [*PICTURES[1:], PICTURES[0]]
    errors = PIXEL_ERROR.score(PICTURES, ITEMS, reference)
    np.testing.assert_allclose(-10 * np.log10(errors), PSNR.score(PICTURES, ITEMS, reference))
    assert PIXEL_ERROR.score(PICTURES, ITEMS, PICTURES) == [0.0] * 6


def test_diversity_of_one_picture_a_prompt_is_refused() -> None:
    with refused(found="diversity with 1 seed", do="--seeds 2"):
        check_seeds({"diversity": DIVERSITY}, 1)
    check_seeds({"diversity": DIVERSITY}, 2)


def test_the_latent_error_is_the_mean_squared_error_over_the_mean_square() -> None:
    first, own = np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)
    expected = ((own - first) ** 2).mean() / (first**2).mean()
    assert relative_error(own, first) == pytest.approx(expected)
    assert relative_error(first, first) == 0.0
    assert relative_error(np.zeros_like(first), first) == 1.0
    assert relative_error(own, np.zeros_like(first)) == float("inf")
