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
from typing import NamedTuple

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
BIG = 34.0  # half-size from which "big" is true, in pixels
SMALL = 23.0  # half-size up to which "small" is true


@dataclass(frozen=True)
class DetectedObject:
    """An object of a picture: its name ("unknown" if no template fits), colour, overlap with the
    template, centre and half-size in pixels.
    """

    name: str
    colour: str
    iou: float
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Score:
    """Whether a picture shows its scene: it does where there are no problems."""

    problems: tuple[str, ...]
    background: str
    objects: tuple[DetectedObject, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


@cache
def _palette() -> tuple[Array, Array]:
    """CIELAB of object colours (7 shades, 3) and of backgrounds (5, shadows, 3)."""
    return _shades(COLOURS, SHADES), _shades(BACKGROUNDS, SHADOWS)


def _shades(colours: dict[str, tuple[int, int, int]], factors: tuple[float, ...]) -> Array:
    """CIELAB of colours, each lit by all factors: (colours, factors, 3)."""
    rgb = np.array(list(colours.values()))[:, None] * np.array(factors)[:, None]
    return rgb2lab(np.clip(rgb, 0, 255) / 255)


def _distance(lab: Array, shades: Array) -> Array:
    """Distance of pixels (..., 3) to the nearest of some shades (S, 3)."""
    return np.sqrt(((lab[..., None, :] - shades) ** 2).sum(-1).min(-1))


def find_background(lab: Array) -> str:
    """The background whose colour the picture's border has, by median."""
    sides = (lab[:3], lab[-3:], lab[:, :3], lab[:, -3:])
    border = np.concatenate([side.reshape(-1, 3) for side in sides])
    _, grounds = _palette()
    distances = [np.median(_distance(border, shades)) for shades in grounds]
    if min(distances) >= 12:
        return "unknown"
    return list(BACKGROUNDS)[int(np.argmin(distances))]


def scaled_outline(mask: Array) -> tuple[Array, float]:
    """A mask scaled to its bounding box, float (40, 40), and the box's width over height."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
    ys = (np.arange(TEMPLATE) + 0.5) * box.shape[0] / TEMPLATE - 0.5
    xs = (np.arange(TEMPLATE) + 0.5) * box.shape[1] / TEMPLATE - 0.5
    scaled = ndimage.map_coordinates(
        box, np.meshgrid(ys, xs, indexing="ij"), order=1, mode="nearest"
    )
    return (scaled > 0.5).astype(float), box.shape[1] / box.shape[0]


class Templates(NamedTuple):
    """What shapes or letters look like: outlines (K, 40, 40), aspects (K,), and half-heights of
    their boxes at size 1 (K,).
    """

    names: tuple[str, ...]
    outlines: Array
    aspects: Array
    heights: Array


@cache
def templates(kind: str) -> Templates:
    """The templates of a kind, "shape" or "letter", from rendered pictures."""
    names: tuple[str, ...] = tuple(LETTERS)
    size = 16
    if kind == "shape":
        names = SHAPES
        size = 40
    outlines = []
    aspects = []
    heights = []
    for name in names:
        item = Item(kind, name, "red", 64, 64, size)
        # fine enough that the box has no rounding
        picture = render(Scene("single", 0, "sky", (item,)), 512)
        mask = (picture[..., 0].astype(int) - picture[..., 2]) > 60
        outline, aspect = scaled_outline(mask)
        outlines.append(outline)
        aspects.append(aspect)
        heights.append(mask.any(1).sum() / 8 / size)
    return Templates(names, np.stack(outlines), np.array(aspects), np.array(heights))


def match(mask: Array, kind: str) -> tuple[str, float, float]:
    """The best template's name, its overlap (intersection over union, times the ratio of aspects),
    and the half-size.
    """
    names, outlines, aspects, heights = templates(kind)
    outline, aspect = scaled_outline(mask)
    both = (outlines * outline).sum((1, 2))
    either = np.maximum(outlines, outline).sum((1, 2))
    overlap = both / either * np.minimum(aspect / aspects, aspects / aspect) ** 0.5
    best = int(np.argmax(overlap))
    return names[best], float(overlap[best]), float(mask.any(1).sum() / 2 / heights[best])


def find_objects(image: Array, kind: str) -> tuple[str, list[DetectedObject]]:
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
    labels, count = ndimage.label(solid)
    objects_here = []
    for label in range(1, count + 1):
        mask = labels == label
        if mask.sum() >= LEAST_AREA:
            objects_here.append(_describe(mask, nearest, kind))
    return background, sorted(objects_here, key=lambda item: item.x)


def _colour(mask: Array, nearest: Array) -> str:
    """The colour that most inner pixels of a piece are nearest to; "mixed" where too few agree."""
    inner = ndimage.binary_erosion(mask, iterations=2)
    if inner.sum() < 12:
        inner = mask
    counts = np.bincount(nearest[inner], minlength=len(COLOURS))
    if counts.max() < LEAST_PURITY * counts.sum():
        return "mixed"
    return list(COLOURS)[int(counts.argmax())]


def _describe(mask: Array, nearest: Array, kind: str) -> DetectedObject:
    name, iou, size = match(mask, kind)
    if iou < LEAST_IOU[kind]:
        name = "unknown"
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    scale = CANVAS / mask.shape[0]
    return DetectedObject(
        name,
        _colour(mask, nearest),
        round(iou, 3),
        (columns[0] + columns[-1] + 1) / 2 * scale,
        (rows[0] + rows[-1] + 1) / 2 * scale,
        size * scale,
    )


def _relation_holds(relation: str, first: DetectedObject, second: DetectedObject) -> bool:
    dx = first.x - second.x
    dy = first.y - second.y
    along, across = {
        "left of": (-dx, dy),
        "right of": (dx, dy),
        "above": (-dy, dx),
        "below": (dy, dx),
    }[relation]
    return along >= LEAST_OFFSET and along > abs(across)


def _problems(scene: Scene, background: str, objects: list[DetectedObject]) -> list[str]:
    """Everything that is wrong, in words; empty if the picture passes."""
    if background != scene.background:
        return [f"background: {background} instead of {scene.background}"]
    if len(objects) != len(scene.items):
        return [f"count: {len(objects)} instead of {len(scene.items)}"]
    if scene.category == "text":
        return _text_problems(scene, objects)
    problems = []
    for expected, actual in zip(sorted(_pairs(scene.items)), sorted(_pairs(objects)), strict=True):
        if expected != actual:
            problems.append(
                f"object: {actual[1]} {actual[0]} instead of {expected[1]} {expected[0]}"
            )
    if not problems and scene.relation:
        by_pair = {(item.name, item.colour): item for item in reversed(objects)}
        first, second = (by_pair[pair] for pair in _pairs(scene.items))
        if not _relation_holds(scene.relation, first, second):
            problems.append("relation")
    if not _size_fits(scene.adjective, objects[0].size):
        problems.append(f"size: {objects[0].size:.0f}")
    return problems


def _text_problems(scene: Scene, letters: list[DetectedObject]) -> list[str]:
    word = ""
    for letter in letters:
        if letter.name == "unknown":
            word += "?"
        else:
            word += letter.name
    problems = []
    if word != scene.word:
        problems.append("word")
    for letter in letters:
        if letter.colour != scene.items[0].colour:
            problems.append(f"colour: {letter.colour}")
    return problems


def _size_fits(adjective: str, size: float) -> bool:
    if adjective == "big":
        return size >= BIG
    if adjective == "small":
        return size <= SMALL
    return True


def _pairs(items: Sequence[Item | DetectedObject]) -> list[tuple[str, str]]:
    return [(item.name, item.colour) for item in items]


def score_image(image: Array, scene: Scene) -> Score:
    """Score a picture, uint8 (H, W, 3), against its scene: strict, all or nothing."""
    kind = "shape"
    if scene.category == "text":
        kind = "letter"
    background, objects = find_objects(image, kind)
    problems = _problems(scene, background, objects)
    return Score(tuple(problems), background, tuple(objects))


# --- reports --------------------------------------------------------------------------------------


class Share(NamedTuple):
    """A share of pictures that pass, 0 to 1, higher is better, with its 95 % interval; None where
    one prompt gives none.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Report:
    """Scores of many pictures."""

    scores: tuple[Score, ...]
    scenes: tuple[Scene, ...]

    @property
    def passed(self) -> dict[str, list[bool]]:
        """Pass or fail of each picture, by category."""
        passed: dict[str, list[bool]] = {}
        for category in CATEGORIES:
            for score, scene in zip(self.scores, self.scenes, strict=True):
                if scene.category == category:
                    passed.setdefault(category, []).append(score.ok)
        return passed

    @property
    def overall(self) -> float:
        """The mean of the categories' means."""
        return float(np.mean([np.mean(passes) for passes in self.passed.values()]))

    def shares(self) -> dict[str, Share]:
        """The share that passes by category, with Wilson's interval, and "overall": the mean of the
        categories with the bootstrap's interval.
        """
        groups = [np.array(passes, float) for passes in self.passed.values()]
        overall = mean_of_groups(groups)
        shares = {"overall": Share(overall.mean, overall.low, overall.high, len(self.scores))}
        for category, passes in self.passed.items():
            low, high = wilson(sum(passes), len(passes))
            shares[category] = Share(float(np.mean(passes)), low, high, len(passes))
        return shares


def score_images(images: Sequence[Array], scenes: Sequence[Scene]) -> Report:
    """Score pictures against their scenes, one by one."""
    pairs = zip(images, scenes, strict=True)
    return Report(tuple(score_image(image, scene) for image, scene in pairs), tuple(scenes))
