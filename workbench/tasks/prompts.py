"""The prompts that a verb samples: a file's lines, the demo's scenes, or a general list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ..comparison.statistics import Item
from ..demo.scenes import caption, prompt_set
from ..families import FAMILIES
from ..records import BadInput
from ..records.prompts import general_prompts, read_prompts
from .resolve import Model

__all__ = [
    "CATEGORIES",
    "check_inputs",
    "general_of",
    "prompt_seed_pairs",
    "prompts_for",
    "read_prompts",
    "scene_items",
]

CATEGORIES = 5  # of the demo's scenes


def prompts_for(model: Model, file: Path | str | None, count: int) -> list[str]:
    """Calibration prompts: all of the file's; else about `count` of the demo's scenes for a bundled
    teacher and its students; else of the general list.
    """
    if file:
        return read_prompts(file)
    if model.bundled:
        per_category = max(1, count // CATEGORIES)
        return [item["prompt"] for item in scene_items(per_category, "validation")]
    return general_of(model)[:count]


def general_of(model: Model) -> list[str]:
    """The general list of prompts for this model: classes, where they are its prompts."""
    return general_prompts(FAMILIES[model.description.family].is_class_conditional)


def scene_items(per_category: int, split: str) -> list[Item]:
    """The demo's scenes as items of a suite, with what their scorer needs: the same ones each time.

    split: "validation", or "eval", from seeds that no training has seen.
    """
    return [
        {"prompt": caption(scene), "category": scene.category, "scene": scene.as_dict()}
        for scene in prompt_set(per_category, split)
    ]


def prompt_seed_pairs(prompts: Sequence[str], seeds: int, together: bool) -> list[tuple[str, int]]:
    """Every prompt with every seed; `together`: a prompt's seeds one after the other, so that most
    batches share no prompt.
    """
    if together:
        return list(product(prompts, range(seeds)))
    return [(prompt, seed) for seed, prompt in product(range(seeds), prompts)]


def check_inputs(inputs: str | None, prompts: str | None) -> None:
    """Raises BadInput for recorded inputs beside prompts."""
    if inputs and prompts:
        raise BadInput("--inputs with --prompts", "one of them", "leave --prompts out")
