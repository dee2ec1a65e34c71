"""Scenes as pixels: a soft vertical gradient, a soft shadow under each thing, edges smoothed by
their distance field.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .scenes import BACKGROUNDS, CANVAS, COLOURS, Item, Scene
from .shapes import LETTER_HEIGHT, LETTERS, PEN, SHAPES, letter_distance, shape_distance

TOKEN = 16  # pixels of a 128 px picture that one image token covers
SHADOW = 0.30  # strength
SHADOW_SHIFT = 3.0  # pixels down
SHADOW_BLUR = 7.0  # pixels wide
# What a token can be covered by: the auxiliary target while training.
COVER_CLASSES = (*SHAPES, *COLOURS, *LETTERS, *BACKGROUNDS)


@cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres in 128 px coordinates: x (W,), y (H,)."""
    centres = ((np.arange(size) + 0.5) * (CANVAS / size)).astype(np.float32)
    return centres, centres


def _window(item: Item, size: int) -> tuple[slice, slice]:
    """Rows and columns that an item and its shadow can touch."""
    half_height = item.size * 1.1
    half_width = item.size * 1.1
    if item.kind == "letter":
        half_height = (LETTER_HEIGHT + PEN) / 2
        half_width = (16 + PEN) / 2 + 1
    pad = SHADOW_SHIFT + SHADOW_BLUR
    rows = _pixels(item.y - half_height - pad, item.y + half_height + pad, size)
    columns = _pixels(item.x - half_width - pad, item.x + half_width + pad, size)
    return rows, columns


def _pixels(low: float, high: float, size: int) -> slice:
    """The pixels of a picture of `size` between two 128 px coordinates."""
    scale = size / CANVAS
    return slice(max(0, int(low * scale)), min(size, int(np.ceil(high * scale)) + 1))


def item_distance(item: Item, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance in pixels of a 128 px picture at points x, y (H, W), 128 px coordinates."""
    if item.kind == "letter":
        return letter_distance(item.name, x - item.x, y - item.y)
    return item.size * shape_distance(item.name, (x - item.x) / item.size, (y - item.y) / item.size)


def _cover(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside, 0 outside, a ramp of `width` pixels between."""
    return np.clip(0.5 - distance / width, 0, 1)


def _paint(canvas: np.ndarray, item: Item, size: int) -> None:
    rows, columns = _window(item, size)
    xs, ys = _grid(size)
    x, y = np.meshgrid(xs[columns], ys[rows])
    distance = item_distance(item, x, y)
    shift = round(SHADOW_SHIFT * size / CANVAS)
    # moved down
    low = np.concatenate([np.full((shift, distance.shape[1]), 99.0), distance])[: len(distance)]
    soft = _cover(low, SHADOW_BLUR)
    patch = canvas[rows, columns]
    patch *= (1 - SHADOW * soft * soft * (3 - 2 * soft))[..., None]
    light = 1.06 - 0.14 * np.clip((y - item.y) / (2 * item.size) + 0.5, 0, 1)  # brighter at the top
    alpha = _cover(distance, CANVAS / size)[..., None]
    patch += alpha * (np.array(COLOURS[item.colour], np.float32) * light[..., None] - patch)


def render(scene: Scene, size: int = CANVAS) -> np.ndarray:
    """The picture of a scene, uint8 (size, size, 3), sRGB. The same scene gives the same bytes."""
    _, ys = _grid(size)
    ramp = (1.05 - 0.10 * ys / CANVAS)[:, None]
    column = np.array(BACKGROUNDS[scene.background], np.float32) * ramp  # (H, 3)
    canvas = np.repeat(column[:, None], size, 1)  # (H, W, 3)
    for item in scene.items:
        _paint(canvas, item, size)
    return (np.clip(canvas, 0, 255) + 0.5).astype(np.uint8)


def cover_map(scene: Scene) -> np.ndarray:
    """What covers each image token, uint8 (64, classes), 255 = wholly; row-major tokens, classes
    `COVER_CLASSES`.
    """
    side = CANVAS // TOKEN  # tokens
    step = 4  # sampled every 4 pixels
    centres = np.arange(step / 2, CANVAS, step, dtype=np.float32)
    x, y = np.meshgrid(centres, centres)
    result = np.zeros((side * side, len(COVER_CLASSES)), np.float32)
    free = np.ones(side * side, np.float32)
    for item in scene.items:
        alpha = _cover(item_distance(item, x, y), step)
        # (64,)
        share = alpha.reshape(side, TOKEN // step, side, TOKEN // step).mean((1, 3)).ravel()
        for name in (item.name, item.colour):
            result[:, COVER_CLASSES.index(name)] += share
        free -= share
    result[:, COVER_CLASSES.index(scene.background)] = np.clip(free, 0, 1)
    return (np.clip(result, 0, 1) * 255 + 0.5).astype(np.uint8)
