"""Scenes: what a picture of the demo world contains, drawn from a seed, with its caption. No pixels
here.

Coordinates are pixels of a 128 px picture (x right, y down); `size` is a shape's half-size. Seeds
below `VALIDATION_SEED` are for training, from there for choosing settings, from `EVALUATION_SEED`
for the published scores.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .shapes import LETTERS, SHAPES

CANVAS = 128
CATEGORIES = ("single", "two", "position", "count", "text")
RELATIONS = ("left of", "right of", "above", "below")
COUNT_WORDS = {2: "two", 3: "three", 4: "four"}
VALIDATION_SEED = 1_000_000_000
EVALUATION_SEED = 2_000_000_000

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (216, 40, 44),
    "orange": (250, 142, 28),
    "yellow": (252, 220, 64),
    "green": (46, 164, 78),
    "blue": (38, 104, 226),
    "purple": (128, 58, 182),
    "pink": (248, 134, 186),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "cream": (246, 238, 222),
    "sky": (172, 210, 238),
    "mint": (186, 230, 206),
    "navy": (26, 34, 78),
    "slate": (82, 92, 108),
}
# Too little contrast to read with certainty.
BANNED = {
    ("blue", "navy"),
    ("purple", "navy"),
    ("yellow", "cream"),
    ("purple", "slate"),
    ("blue", "slate"),
    ("green", "slate"),
}

_WORDS = """
ACE AIR ANT ARM ART BAG BAT BED BEE BIG BOX BOY BUS CAT COW CUP DAY DOG DOT EAR EGG ELF EYE FAN
FIG FOG FOX FUN GEM GUM HAT HEN HUG ICE INK JAM JAR JET JOY KEY KID KIT LEG LIP LOG MAP MIX MOM
MUD NET NUT OAK OIL OWL PAN PEN PIE PIG POT RAY RED RUN SEA SKY SUN TEA TEN TOE TOP TOY VAN WEB
WIN YES ZOO AREA BABY BALL BEAR BELL BIRD BLUE BOAT BOOK CAKE CITY COIN CUBE DEER DOOR DUCK EAST
FACE FARM FIRE FISH FLAG FROG GAME GATE GIFT GOAT GOLD HAND HERO HOME HOPE IDEA JUMP JUNE KIWI
LAKE LEAF LION MILK MIND MOON NEST NOTE OVEN PARK PINK QUIZ RAIN RING ROAD ROCK ROSE SAIL SHIP
SNOW SONG STAR TIME TREE UNIT VIEW WAVE WIND WOLF YEAR ZERO ZOOM
"""
_HELD_OUT = """
BUG CAR FIT HOP JOG KEG LID MUG NAP POD RUG TUB BARK CLUB DESK FERN GLOW HAWK JADE LUCK MINT PLUM
SWIM VASE
"""
WORDS = tuple(_WORDS.split())
HELD_OUT_WORDS = tuple(_HELD_OUT.split())


@dataclass(frozen=True)
class Item:
    """One thing in a scene: `kind` "shape" or "letter", its name, colour, centre and half-size in
    pixels.
    """

    kind: str
    name: str
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """A picture's content. `relation` says where items[0] is from items[1]; `word` is the text, if
    any.
    """

    category: str
    seed: int
    background: str
    items: tuple[Item, ...]
    adjective: str = ""
    relation: str = ""
    word: str = ""

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Scene:
        """The scene that `as_dict` wrote."""
        return cls(**{**data, "items": tuple(Item(**item) for item in data["items"])})


def caption(scene: Scene) -> str:
    """The scene in words, from a small fixed grammar."""
    first = scene.items[0]
    where = f"on {scene.background}"
    if scene.category == "text":
        return f"the word {scene.word} in {first.colour} {where}"
    if scene.category == "count":
        return f"{COUNT_WORDS[len(scene.items)]} {first.colour} {plural(first.name)} {where}"
    if scene.category == "two":
        return f"{noun_phrase(first)} and {noun_phrase(scene.items[1])} {where}"
    if scene.category == "position":
        return f"{noun_phrase(first)} {scene.relation} {noun_phrase(scene.items[1])} {where}"
    if scene.adjective:
        return f"a {scene.adjective} {first.colour} {first.name} {where}"
    return f"{noun_phrase(first)} {where}"


def plural(noun: str) -> str:
    if noun.endswith("s"):
        return noun + "es"
    return noun + "s"


def noun_phrase(item: Item) -> str:
    article = "a"
    if item.colour == "orange":
        article = "an"
    return f"{article} {item.colour} {item.name}"


def _colours(rng: np.random.Generator, background: str, n: int) -> list[str]:
    """n different colours that can be read on the background."""
    allowed = [c for c in COLOURS if (c, background) not in BANNED]
    return [allowed[i] for i in rng.permutation(len(allowed))[:n]]


def _shape(
    rng: np.random.Generator,
    name: str,
    colour: str,
    at: tuple[float, float],
    size: float,
    jitter: float,
) -> Item:
    dx, dy = rng.uniform(-jitter, jitter, 2)
    return Item(
        "shape",
        name,
        colour,
        round(at[0] + dx, 2),
        round(at[1] + dy, 2),
        round(size * rng.uniform(0.94, 1.06), 2),
    )


@dataclass(frozen=True)
class Content:
    """What a category draws: the fields of a scene that depend on it."""

    items: tuple[Item, ...]
    adjective: str = ""
    relation: str = ""
    word: str = ""


def _single(rng: np.random.Generator, colours: list[str]) -> Content:
    adjective = ("", "big", "small")[rng.integers(3)]
    size = {"": 29, "big": 42, "small": 17}[adjective]
    item = _shape(rng, SHAPES[rng.integers(len(SHAPES))], colours[0], (64, 64), size, 6)
    return Content((item,), adjective=adjective)


def _pair(
    rng: np.random.Generator, colours: list[str], at: list[tuple[float, float]]
) -> tuple[Item, ...]:
    names = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:2]]
    return tuple(_shape(rng, names[i], colours[i], at[i], 22, 3) for i in range(2))


def _two(rng: np.random.Generator, colours: list[str]) -> Content:
    # on a diagonal, either way; what is named first stands left
    tilt = -22
    if rng.random() < 0.5:
        tilt = 22
    return Content(_pair(rng, colours, [(38, 64 - tilt), (90, 64 + tilt)]))


SIDES = {"left of": (-29, 0), "right of": (29, 0), "above": (0, -29), "below": (0, 29)}


def _position(rng: np.random.Generator, colours: list[str]) -> Content:
    relation = RELATIONS[rng.integers(4)]
    dx, dy = SIDES[relation]
    items = _pair(rng, colours, [(64 + dx, 64 + dy), (64 - dx, 64 - dy)])
    return Content(items, relation=relation)


LAYOUTS = {
    2: [[(36, 64), (92, 64)], [(64, 36), (64, 92)]],
    3: [[(64, 36), (34, 90), (94, 90)], [(34, 38), (94, 38), (64, 92)]],
    4: [[(36, 36), (92, 36), (36, 92), (92, 92)]],
}


def _count(rng: np.random.Generator, colours: list[str]) -> Content:
    layouts = LAYOUTS[int(rng.integers(2, 5))]
    name = SHAPES[rng.integers(len(SHAPES))]
    points = layouts[rng.integers(len(layouts))]
    return Content(tuple(_shape(rng, name, colours[0], point, 21, 3) for point in points))


def _text(rng: np.random.Generator, colours: list[str], held_out: bool) -> Content:
    word = _word(rng, held_out)
    dx = rng.uniform(-1, 1)
    dy = rng.uniform(-3, 3)
    items = []
    for place, letter in enumerate(word):
        # 32 px a letter: two image tokens, so that a letter looks the same to the transformer at
        # every place
        x = 64 + dx + 32 * (place - (len(word) - 1) / 2)
        items.append(Item("letter", letter, colours[0], round(x, 2), round(64 + dy, 2), 16))
    return Content(tuple(items), word=word)


def _word(rng: np.random.Generator, held_out: bool) -> str:
    """A word that training never shows (only with `held_out`), a known one, or random letters, by
    which each letter is learned at each place.
    """
    kind = rng.random()
    known_until = 0.35
    if held_out:
        known_until = 0.75
    if held_out and kind < 0.5:
        return HELD_OUT_WORDS[rng.integers(len(HELD_OUT_WORDS))]
    if kind < known_until:
        return WORDS[rng.integers(len(WORDS))]
    return "".join(LETTERS[i] for i in rng.integers(26, size=rng.integers(3, 5)))


DRAWN = {"single": _single, "two": _two, "position": _position, "count": _count}


def sample_scene(category: str, seed: int) -> Scene:
    """The scene of a seed. Held-out words appear only from `VALIDATION_SEED` on."""
    rng = np.random.default_rng((CATEGORIES.index(category), seed))
    while True:
        background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
        colours = _colours(rng, background, 2)
        if category == "text":
            content = _text(rng, colours, seed >= VALIDATION_SEED)
        else:
            content = DRAWN[category](rng, colours)
        if seed >= VALIDATION_SEED or content.word not in HELD_OUT_WORDS:
            return Scene(
                category,
                seed,
                background,
                content.items,
                content.adjective,
                content.relation,
                content.word,
            )


def prompt_set(n_per_category: int, split: str = "eval") -> list[Scene]:
    """n scenes of each category, from the seeds of "train", "validation" or "eval"."""
    base = {"train": 0, "validation": VALIDATION_SEED, "eval": EVALUATION_SEED}[split]
    scenes = []
    for category in CATEGORIES:
        scenes += [sample_scene(category, base + i) for i in range(n_per_category)]
    return scenes
