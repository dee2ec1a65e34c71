"""Does a picture show what its scene says? Pass or fail, in the spirit of GenEval (arXiv
2310.11513), without a network.

Pixels go to the nearest palette colour in CIELAB, connected pieces become objects, and an object's
outline, scaled to its bounding box, is compared with exact templates. A piece that fits no template
well is "unknown", so blobs do not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab

from ..comparison.statistics import mean_of_groups, wilson
from .render import render
from .scenes import BACKGROUNDS, CANVAS, CATEGORIES, COLOURS, Item, Scene
from .shapes import LETTERS, SHAPES

Array = np.ndarray

TEMPLATE = 40  # pixels a side of a scaled outline
LEAST_AREA = 40  # smaller pieces are specks (the smallest true object has about 250 pixels)
LEAST_IOU = {"shape": 0.80, "letter": 0.72}
LEAST_PURITY = 0.75  # of an object's inner pixels that have its colour
SHADES = (0.93, 1.0, 1.06)  # of an object's colour, top to bottom
SHADOWS = (0.66, 0.74, 0.82, 0.9, 0.96, 1.0, 1.05)  # of a background's colour, in and out of shadow
LEAST_OFFSET = 16  # pixels between centres for "left of" and its like
BIG, SMALL = 34.0, 23.0  # half-sizes from and up to which "big" and "small" are true


@dataclass(frozen=True)
class Found:
    """An object that was seen: its name ("unknown" if no template fits), colour, overlap, centre
    and half-size in pixels.
    """

    name: str
    colour: str
    iou: float
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Score:
    """Whether a picture shows its scene; `details` has what was seen and why it failed."""

    ok: bool
    details: dict[str, Any]


@cache
def _palette() -> tuple[Array, Array]:
    """CIELAB of object colours (7 shades, 3) and of backgrounds (5, shadows, 3)."""
    objects = [[np.clip(np.array(c) * s, 0, 255) for s in SHADES] for c in COLOURS.values()]
    grounds = [[np.clip(np.array(c) * s, 0, 255) for s in SHADOWS] for c in BACKGROUNDS.values()]
    return rgb2lab(np.array(objects) / 255), rgb2lab(np.array(grounds) / 255)


def _distance(lab: Array, shades: Array) -> Array:
    """Distance of pixels (..., 3) to the nearest of some shades (S, 3)."""
    return np.sqrt(((lab[..., None, :] - shades) ** 2).sum(-1).min(-1))


def find_background(lab: Array) -> str:
    """The background whose colour the picture's border has, by median."""
    border = np.concatenate(
        [
            lab[:3].reshape(-1, 3),
            lab[-3:].reshape(-1, 3),
            lab[:, :3].reshape(-1, 3),
            lab[:, -3:].reshape(-1, 3),
        ]
    )
    distances = [np.median(_distance(border, shades)) for shades in _palette()[1]]
    return list(BACKGROUNDS)[int(np.argmin(distances))] if min(distances) < 12 else "unknown"


def scaled_outline(mask: Array) -> tuple[Array, float]:
    """A piece's mask scaled to its bounding box, float (40, 40), and the box's width over height."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
    ys = (np.arange(TEMPLATE) + 0.5) * box.shape[0] / TEMPLATE - 0.5
    xs = (np.arange(TEMPLATE) + 0.5) * box.shape[1] / TEMPLATE - 0.5
    scaled = ndimage.map_coordinates(
        box, np.meshgrid(ys, xs, indexing="ij"), order=1, mode="nearest"
    )
    return (scaled > 0.5).astype(float), box.shape[1] / box.shape[0]


@cache
def _templates(kind: str) -> tuple[tuple[str, ...], Array, Array, Array]:
    """Names, outlines (K, 40, 40), aspects (K,) and box half-heights at size 1 (K,) of shapes or
    letters.
    """
    names = SHAPES if kind == "shape" else tuple(LETTERS)
    size = 40 if kind == "shape" else 16
    outlines, aspects, heights = [], [], []
    for name in names:
        item = Item(kind, name, "red", 64, 64, size)
        # fine enough that the box has no rounding
        picture = render(Scene("single", 0, "sky", (item,)), 512)
        mask = (picture[..., 0].astype(int) - picture[..., 2]) > 60
        outline, aspect = scaled_outline(mask)
        outlines.append(outline)
        aspects.append(aspect)
        heights.append(mask.any(1).sum() / 8 / size)
    return names, np.stack(outlines), np.array(aspects), np.array(heights)


def match(mask: Array, kind: str) -> tuple[str, float, float]:
    """The best template's name, its overlap (intersection over union, times the ratio of aspects),
    and the half-size.
    """
    names, outlines, aspects, heights = _templates(kind)
    outline, aspect = scaled_outline(mask)
    both, either = (outlines * outline).sum((1, 2)), np.maximum(outlines, outline).sum((1, 2))
    overlap = both / either * np.minimum(aspect / aspects, aspects / aspect) ** 0.5
    best = int(np.argmax(overlap))
    return names[best], float(overlap[best]), float(mask.any(1).sum() / 2 / heights[best])


def find_objects(image: Array, kind: str) -> tuple[str, list[Found]]:
    """Background and objects of a picture, uint8 (H, W, 3), from left to right. kind: "shape" or
    "letter".
    """
    lab = rgb2lab(image)
    background = find_background(lab)
    if background == "unknown":
        return background, []
    objects, grounds = _palette()
    distances = np.stack([_distance(lab, shades) for shades in objects])  # (colours, H, W)
    nearest = distances.argmin(0)
    solid = distances.min(0) < _distance(lab, grounds[list(BACKGROUNDS).index(background)])
    labels, n = ndimage.label(solid)
    found = [
        _describe(labels == i, nearest, kind)
        for i in range(1, n + 1)
        if (labels == i).sum() >= LEAST_AREA
    ]
    return background, sorted(found, key=lambda f: f.x)


def _describe(mask: Array, nearest: Array, kind: str) -> Found:
    inner = ndimage.binary_erosion(mask, iterations=2)
    inner = inner if inner.sum() >= 12 else mask
    counts = np.bincount(nearest[inner], minlength=len(COLOURS))
    colour = (
        list(COLOURS)[int(counts.argmax())]
        if counts.max() >= LEAST_PURITY * counts.sum()
        else "mixed"
    )
    name, iou, size = match(mask, kind)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    scale = CANVAS / mask.shape[0]
    return Found(
        name if iou >= LEAST_IOU[kind] else "unknown",
        colour,
        round(iou, 3),
        (columns[0] + columns[-1] + 1) / 2 * scale,
        (rows[0] + rows[-1] + 1) / 2 * scale,
        size * scale,
    )


def _relation_holds(relation: str, first: Found, second: Found) -> bool:
    dx, dy = first.x - second.x, first.y - second.y
    along, across = {
        "left of": (-dx, dy),
        "right of": (dx, dy),
        "above": (-dy, dx),
        "below": (dy, dx),
    }[relation]
    return along >= LEAST_OFFSET and along > abs(across)


def _problems(scene: Scene, background: str, found: list[Found]) -> list[str]:
    """Everything that is wrong, in words; empty if the picture passes."""
    if background != scene.background:
        return [f"background: {background} instead of {scene.background}"]
    if len(found) != len(scene.items):
        return [f"count: {len(found)} instead of {len(scene.items)}"]
    wanted, seen = sorted(_pairs(scene.items)), sorted(_pairs(found))
    if scene.category == "text":
        problems = (
            []
            if "".join(f.name[0] if f.name != "unknown" else "?" for f in found) == scene.word
            else ["word"]
        )
        return problems + [
            f"colour: {f.colour}" for f in found if f.colour != scene.items[0].colour
        ]
    problems = [
        f"object: {b[1]} {b[0]} instead of {a[1]} {a[0]}"
        for a, b in zip(wanted, seen, strict=True)
        if a != b
    ]
    if not problems and scene.relation:
        first, second = (
            next(f for f in found if (f.name, f.colour) == pair) for pair in _pairs(scene.items)
        )
        problems = [] if _relation_holds(scene.relation, first, second) else ["relation"]
    if scene.adjective and not (
        found[0].size >= BIG if scene.adjective == "big" else found[0].size <= SMALL
    ):
        problems.append(f"size: {found[0].size:.0f}")
    return problems


def _pairs(items: Sequence[Item | Found]) -> list[tuple[str, str]]:
    return [(item.name, item.colour) for item in items]


def score_image(image: Array, scene: Scene) -> Score:
    """Score a picture, uint8 (H, W, 3), against its scene: strict, all or nothing."""
    kind = "letter" if scene.category == "text" else "shape"
    background, found = find_objects(image, kind)
    problems = _problems(scene, background, found)
    return Score(
        not problems,
        {"problems": problems, "background": background, "objects": [vars(f) for f in found]},
    )


@dataclass(frozen=True)
class Report:
    """Scores of many pictures; shares from 0 to 1, higher is better, with 95 % intervals."""

    scores: tuple[Score, ...]
    scenes: tuple[Scene, ...]

    @property
    def passed(self) -> dict[str, list[bool]]:
        """Pass or fail of each picture, by category."""
        return {
            c: [
                s.ok
                for s, scene in zip(self.scores, self.scenes, strict=True)
                if scene.category == c
            ]
            for c in CATEGORIES
            if any(scene.category == c for scene in self.scenes)
        }

    @property
    def overall(self) -> float:
        """The mean of the categories' means."""
        return float(np.mean([np.mean(v) for v in self.passed.values()]))

    def as_dict(self) -> dict[str, Any]:
        """{"overall": {mean, low, high, n}, category: the same}, with 95 % intervals: Wilson's of a
        category, the bootstrap's of the mean of the categories.
        """
        groups = [np.array(passes, float) for passes in self.passed.values()]
        overall = mean_of_groups(groups)
        rows = {"overall": interval_row(overall.mean, overall.low, overall.high, len(self.scores))}
        for category, passes in self.passed.items():
            low, high = wilson(sum(passes), len(passes))
            rows[category] = interval_row(float(np.mean(passes)), low, high, len(passes))
        return rows


def interval_row(mean: float, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "n": n}


def score_images(images: Sequence[Array], scenes: Sequence[Scene]) -> Report:
    """Score pictures against their scenes, one by one."""
    return Report(
        tuple(score_image(i, s) for i, s in zip(images, scenes, strict=True)), tuple(scenes)
    )
