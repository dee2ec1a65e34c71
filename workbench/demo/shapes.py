"""Signed distance fields of the eight shapes and of a stroke font, in numpy. No font file, no
drawing library.

A field maps points to the distance from the outline: negative inside. Shapes live in a box of
half-size 1 (x right, y down); letters are poly-lines in a box of 16 x 32 units that are drawn with
a round pen.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import map_coordinates

Array = np.ndarray

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# pixels of a 128 px picture; the pen's diameter is added around
LETTER_WIDTH = 16.0
LETTER_HEIGHT = 32.0
PEN = 7.0

_TRIANGLE = np.array([(0.0, -0.95), (0.98, 0.78), (-0.98, 0.78)])
_DIAMOND = np.array([(0.0, -1.0), (0.78, 0.0), (0.0, 1.0), (-0.78, 0.0)])
_STAR = np.array(
    [
        (radius * np.sin(k * np.pi / 5), 0.06 - radius * np.cos(k * np.pi / 5))
        for k, radius in enumerate([1.06, 0.50] * 5)
    ]
)
_CROSS = np.array(
    [
        (-0.34, -0.96),
        (0.34, -0.96),
        (0.34, -0.34),
        (0.96, -0.34),
        (0.96, 0.34),
        (0.34, 0.34),
        (0.34, 0.96),
        (-0.34, 0.96),
        (-0.34, 0.34),
        (-0.96, 0.34),
        (-0.96, -0.34),
        (-0.34, -0.34),
    ]
)


def _heart_outline() -> Array:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 16.4, (y - 2.4) / 15.2], 1)


_HEART = _heart_outline()


def segment_distance(x: Array, y: Array, a: Array, b: Array) -> Array:
    """Distance from points x, y (H, W) to the nearest of S segments a to b (S, 2): (H, W)."""
    d = b - a  # (S, 2)
    px = x[..., None] - a[:, 0]  # (H, W, S)
    py = y[..., None] - a[:, 1]
    t = np.clip((px * d[:, 0] + py * d[:, 1]) / np.maximum((d * d).sum(1), 1e-9), 0, 1)
    return np.sqrt(((px - t * d[:, 0]) ** 2 + (py - t * d[:, 1]) ** 2).min(-1))


def polygon_distance(x: Array, y: Array, points: Array) -> Array:
    """Signed distance to a closed polygon (P, 2), by nearest edge and crossing number."""
    nxt = np.roll(points, -1, 0)
    distance = segment_distance(x, y, points, nxt)
    above = (points[:, 1] > y[..., None]) != (nxt[:, 1] > y[..., None])  # (H, W, P)
    rise = np.where(nxt[:, 1] == points[:, 1], 1e-9, nxt[:, 1] - points[:, 1])
    cross = points[:, 0] + (y[..., None] - points[:, 1]) * (nxt[:, 0] - points[:, 0]) / rise
    inside = (above & (x[..., None] < cross)).sum(-1) % 2 == 1
    return np.where(inside, -distance, distance)


def shape_distance(name: str, x: Array, y: Array) -> Array:
    """Signed distance of a unit shape at points x, y (H, W), in units of the shape's half-size."""
    if name == "circle":
        return np.hypot(x, y) - 0.97
    if name == "ring":
        return np.abs(np.hypot(x, y) - 0.74) - 0.25
    if name == "square":
        return (
            np.hypot(np.maximum(np.abs(x) - 0.74, 0), np.maximum(np.abs(y) - 0.74, 0))
            - 0.12
            + np.minimum(np.maximum(np.abs(x) - 0.74, np.abs(y) - 0.74), 0)
        )
    grid = _polygon_field(name)
    scale = (len(grid) - 1) / 4
    return map_coordinates(grid, [(y + 2) * scale, (x + 2) * scale], order=1, mode="nearest")


@cache
def _polygon_field(name: str) -> Array:
    """A polygon's signed distance on a 201 x 201 grid over [-2, 2]: read by interpolation, ten
    times faster than computed.
    """
    points, rounding = {
        "triangle": (_TRIANGLE * 0.92, 0.06),
        "diamond": (_DIAMOND * 0.95, 0.05),
        "star": (_STAR * 0.94, 0.05),
        "cross": (_CROSS * 0.95, 0.05),
        "heart": (_HEART, 0.02),
    }[name]
    x, y = np.meshgrid(np.linspace(-2, 2, 201), np.linspace(-2, 2, 201))
    return (polygon_distance(x, y, points) - rounding).astype(np.float32)


# Strokes in a 16 x 32 box. A point (cx, cy, rx, ry, from, to) is an arc in degrees, 0 = right, 90 =
# down.
_STROKES: dict[str, list[list[tuple[float, ...]]]] = {
    "A": [[(0, 32), (8, 0), (16, 32)], [(3, 21), (13, 21)]],
    "B": [
        [(0, 0), (0, 32), (8, 32), (8, 24, 8, 8, 90, -90), (0, 16)],
        [(0, 0), (8, 0), (8, 8, 7, 8, -90, 90)],
    ],
    "C": [[(9, 16, 9, 16, -45, -315)]],
    "D": [[(0, 0), (0, 32), (4, 32), (4, 16, 12, 16, 90, -90), (0, 0)]],
    "E": [[(16, 0), (0, 0), (0, 32), (16, 32)], [(0, 16), (12, 16)]],
    "F": [[(16, 0), (0, 0), (0, 32)], [(0, 15), (12, 15)]],
    "G": [[(9, 16, 9, 16, -45, -360), (10, 17)]],
    "H": [[(0, 0), (0, 32)], [(16, 0), (16, 32)], [(0, 16), (16, 16)]],
    "I": [[(8, 0), (8, 32)], [(3, 0), (13, 0)], [(3, 32), (13, 32)]],
    "J": [[(14, 0), (14, 23), (7, 23, 7, 9, 0, 180)]],
    "K": [[(0, 0), (0, 32)], [(15, 0), (0, 19)], [(5, 13), (16, 32)]],
    "L": [[(0, 0), (0, 32), (15, 32)]],
    "M": [[(0, 32), (0, 0), (8, 18), (16, 0), (16, 32)]],
    "N": [[(0, 32), (0, 0), (16, 32), (16, 0)]],
    "O": [[(8, 16, 8.5, 16, 0, 360)]],
    "P": [[(0, 32), (0, 0), (7, 0), (7, 9, 9, 9, -90, 90), (0, 18)]],
    "Q": [[(8, 16, 8.5, 16, 0, 360)], [(9, 22), (17, 34)]],
    "R": [[(0, 32), (0, 0), (7, 0), (7, 9, 9, 9, -90, 90), (0, 18)], [(7, 18), (16, 32)]],
    "S": [[(8, 8, 8, 8, -30, -270), (8, 24, 8, 8, -90, 150)]],
    "T": [[(0, 0), (16, 0)], [(8, 0), (8, 32)]],
    "U": [[(0, 0), (0, 23), (8, 23, 8, 9, 180, 0), (16, 0)]],
    "V": [[(0, 0), (8, 32), (16, 0)]],
    "W": [[(0, 0), (3.5, 32), (8, 10), (12.5, 32), (16, 0)]],
    "X": [[(0, 0), (16, 32)], [(16, 0), (0, 32)]],
    "Y": [[(0, 0), (8, 16), (16, 0)], [(8, 16), (8, 32)]],
    "Z": [[(0, 0), (16, 0), (0, 32), (16, 32)]],
}


def stroke_points(stroke: list[tuple[float, ...]]) -> list[tuple[float, float]]:
    """A stroke's corners, its arcs as short segments."""
    points: list[tuple[float, float]] = []
    for corner in stroke:
        if len(corner) == 2:
            points.append((corner[0], corner[1]))
            continue
        cx, cy, rx, ry, start, end = corner
        segments = max(4, int(abs(end - start) / 22))
        for angle in np.radians(np.linspace(start, end, segments + 1)):
            points.append((cx + rx * np.cos(angle), cy + ry * np.sin(angle)))
    return points


@cache
def letter_segments(letter: str) -> tuple[Array, Array]:
    """A letter's strokes as segments from a to b, each (S, 2), in the 16 x 32 box centred on the
    origin.
    """
    starts = []
    ends = []
    for stroke in _STROKES[letter]:
        points = stroke_points(stroke)
        starts += points[:-1]
        ends += points[1:]
    centre = np.array([LETTER_WIDTH / 2, LETTER_HEIGHT / 2])
    return np.array(starts) - centre, np.array(ends) - centre


def letter_distance(letter: str, x: Array, y: Array) -> Array:
    """Signed distance of a pen-drawn letter at points x, y (H, W), in 128 px coordinates."""
    a, b = letter_segments(letter)
    return segment_distance(x, y, a, b) - PEN / 2
