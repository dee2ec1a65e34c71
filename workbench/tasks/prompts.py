"""The prompts that a verb samples: a file's lines, the demo's scenes, or a general list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..demo.scenes import caption, prompt_set
from ..records.prompts import GENERAL_PROMPTS, read_prompts
from .resolve import Model

__all__ = ["CATEGORIES", "GENERAL_PROMPTS", "prompts_for", "read_prompts", "scenes"]

CATEGORIES = 5  # of the demo's scenes


def prompts_for(model: Model, file: Path | str | None, count: int) -> list[str]:
    """Calibration prompts: all of the file's; else about `count` of the demo's scenes for a bundled
    teacher and its students; else of the general list.
    """
    if file:
        return read_prompts(file)
    if model.bundled:
        per_category = max(1, count // CATEGORIES)
        return [prompt for prompt, _ in scenes(per_category, "validation")]
    return list(GENERAL_PROMPTS[:count])


def scenes(per_category: int, split: str) -> list[tuple[str, dict[str, Any]]]:
    """(caption, item for the scene scorer) of the demo's prompts: the same ones each time."""
    return [(caption(scene), scene.as_dict()) for scene in prompt_set(per_category, split)]
