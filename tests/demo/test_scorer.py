"""The scorer passes true pictures and fails damaged ones."""

from dataclasses import replace

import numpy as np

from workbench.demo.render import render
from workbench.demo.scenes import CATEGORIES, Item, Scene, prompt_set, sample_scene
from workbench.demo.scorer import score_image, score_images
from workbench.demo.shapes import SHAPES


def item(name, colour, x, y, size=22, kind="shape"):
    return Item(kind, name, colour, x, y, size)


PAIR = Scene(
    "position",
    0,
    "cream",
    (item("circle", "red", 35, 64), item("square", "blue", 93, 64)),
    relation="left of",
)


def fails(scene, drawn, reason):
    score = score_image(drawn if isinstance(drawn, np.ndarray) else render(drawn), scene)
    assert not score.ok
    assert reason in " ".join(score.problems)


def test_true_pictures_pass_in_every_category():
    scenes = prompt_set(40, "eval")
    report = score_images([render(s) for s in scenes], scenes)
    rows = report.shares()
    assert rows["overall"].n == 200
    assert all(rows[c].mean >= 0.98 for c in CATEGORIES)


def test_every_shape_is_told_from_every_other():
    for drawn in SHAPES:
        picture = render(Scene("single", 0, "mint", (item(drawn, "purple", 64, 64),)))
        for said in SHAPES:
            scene = Scene("single", 0, "mint", (item(said, "purple", 64, 64),))
            assert score_image(picture, scene).ok == (said == drawn)


def test_wrong_colour_fails():
    fails(
        PAIR, replace(PAIR, items=(PAIR.items[0], replace(PAIR.items[1], colour="green"))), "object"
    )


def test_swapped_colours_fail():
    fails(
        PAIR,
        replace(PAIR, items=(item("circle", "blue", 35, 64), item("square", "red", 93, 64))),
        "object",
    )


def test_missing_and_extra_objects_fail():
    fails(PAIR, replace(PAIR, items=PAIR.items[:1]), "count")
    fails(PAIR, replace(PAIR, items=(*PAIR.items, item("star", "red", 64, 108, 14))), "count")


def test_swapped_order_fails():
    fails(
        PAIR,
        replace(PAIR, items=(item("circle", "red", 93, 64), item("square", "blue", 35, 64))),
        "relation",
    )
    fails(
        PAIR,
        replace(PAIR, items=(item("circle", "red", 64, 35), item("square", "blue", 64, 93))),
        "relation",
    )


def test_wrong_background_fails():
    fails(PAIR, replace(PAIR, background="sky"), "background")


def test_wrong_size_fails():
    big = Scene("single", 0, "sky", (item("heart", "red", 64, 64, 42),), adjective="big")
    assert score_image(render(big), big).ok
    fails(big, replace(big, items=(item("heart", "red", 64, 64, 22),)), "size")


def test_blobs_fail():
    """A wobbly potato has a colour but no shape."""
    y, x = np.mgrid[:128, :128] - 63.5
    angle = np.arctan2(y, x)
    blob = np.hypot(x, y) < 26 * (1 + 0.28 * np.sin(2 * angle + 0.4) + 0.14 * np.sin(3 * angle))
    for shape in SHAPES:
        scene = Scene("single", 0, "cream", (item(shape, "red", 64, 64, 28),))
        picture = render(replace(scene, items=(item(shape, "red", 64, 64, 0.5),)))
        picture[blob] = (216, 40, 44)
        fails(scene, picture, "object")


def test_wrong_and_missing_letters_fail():
    scene = next(s for s in (sample_scene("text", i) for i in range(99)) if len(s.word) == 4)
    wrong = "X" if scene.word[1] != "X" else "O"
    items = list(scene.items)
    fails(
        scene, replace(scene, items=(items[0], replace(items[1], name=wrong), *items[2:])), "word"
    )
    fails(scene, replace(scene, items=tuple(items[:3])), "count")
    other = "green" if items[0].colour != "green" else "red"
    fails(
        scene,
        replace(scene, items=(items[0], replace(items[1], colour=other), *items[2:])),
        "colour",
    )


def test_two_tone_objects_fail():
    scene = Scene("single", 0, "cream", (item("circle", "red", 64, 64, 28),))
    picture = render(scene)
    half = render(replace(scene, items=(item("circle", "blue", 64, 64, 28),)))
    picture[:, 64:] = half[:, 64:]
    fails(scene, picture, "object")
