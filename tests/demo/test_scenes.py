"""Scenes, captions and pictures: the same seed gives the same bytes, training and evaluation never
share a seed.
"""

import json
import re

import numpy as np
import pytest

from workbench.demo.render import COVER_CLASSES, cover_map, render
from workbench.demo.scenes import (
    BACKGROUNDS,
    BANNED,
    CATEGORIES,
    COLOURS,
    EVALUATION_SEED,
    HELD_OUT_WORDS,
    VALIDATION_SEED,
    WORDS,
    Scene,
    caption,
    prompt_set,
    sample_scene,
)
from workbench.demo.shapes import LETTERS, SHAPES
from workbench.demo.training.models import (
    PREFIX,
    PREFIX_TOKENS,
    SUFFIX,
    TEXT_TOKENS,
    build_tokenizer,
    tokenize,
)

GRAMMAR = {
    "single": r"an? (big |small )?{c} {s} on {b}",
    "two": r"an? {c} {s} and an? {c} {s} on {b}",
    "position": r"an? {c} {s} (left of|right of|above|below) an? {c} {s} on {b}",
    "count": r"(two|three|four) {c} {s}(es|s) on {b}",
    "text": r"the word [A-Z]{{3,4}} in {c} on {b}",
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_seed_is_a_picture(category):
    scene, again = sample_scene(category, 7), sample_scene(category, 7)
    assert scene == again
    assert scene != sample_scene(category, 8)
    assert np.array_equal(render(scene), render(again))
    assert render(scene).shape == (128, 128, 3)
    assert render(scene).dtype == np.uint8
    assert render(scene, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("category", CATEGORIES)
def test_captions_follow_the_grammar(category):
    words = {
        "c": f"({'|'.join(COLOURS)})",
        "s": f"({'|'.join(SHAPES)})",
        "b": f"({'|'.join(BACKGROUNDS)})",
    }
    pattern = re.compile(GRAMMAR[category].format(**words))
    for seed in range(100):
        assert pattern.fullmatch(caption(sample_scene(category, seed)))


def test_scenes_survive_json():
    for scene in prompt_set(3):
        assert Scene.from_dict(json.loads(json.dumps(scene.as_dict()))) == scene


def test_splits_share_no_seed_and_training_no_held_out_word():
    assert all(s.seed < VALIDATION_SEED for s in prompt_set(5, "train"))
    assert all(VALIDATION_SEED <= s.seed < EVALUATION_SEED for s in prompt_set(5, "validation"))
    assert all(s.seed >= EVALUATION_SEED for s in prompt_set(5, "eval"))
    assert not set(WORDS) & set(HELD_OUT_WORDS)
    assert not any(sample_scene("text", i).word in HELD_OUT_WORDS for i in range(500))
    assert any(s.word in HELD_OUT_WORDS for s in prompt_set(30) if s.category == "text")


def test_no_scene_has_an_unreadable_colour():
    for scene in prompt_set(60, "train"):
        assert not {(item.colour, scene.background) for item in scene.items} & BANNED


def test_cover_maps_say_what_is_where():
    scene = sample_scene("position", 3)
    cover = cover_map(scene).reshape(8, 8, -1) / 255
    for item in scene.items:
        seen = cover[..., COVER_CLASSES.index(item.name)]
        y, x = np.unravel_index(seen.argmax(), seen.shape)
        assert abs(16 * x + 8 - item.x) < 24
        assert abs(16 * y + 8 - item.y) < 24
    assert cover[0, 0, COVER_CLASSES.index(scene.background)] == 1
    assert cover.shape[-1] == len(SHAPES) + len(COLOURS) + len(LETTERS) + len(BACKGROUNDS)


def test_the_tokenizer_fits_the_pipeline_template():
    tokenizer = build_tokenizer()
    assert len(tokenizer(PREFIX).input_ids) == PREFIX_TOKENS == 34
    for scene in prompt_set(40, "train"):
        text = caption(scene)
        (row,) = tokenize([text])
        assert len(row) <= TEXT_TOKENS
        assert tokenizer(PREFIX + text + SUFFIX).input_ids[34:] == row
        assert tokenizer.decode(row) == text + SUFFIX
    (row,) = tokenize(["the word CAT in red on sky"])
    assert [tokenizer.convert_ids_to_tokens(i) for i in row[2:6]] == ["Ġ", "C", "A", "T"]
