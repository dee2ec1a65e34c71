"""The prompts that a verb samples: a file's lines, the demo's scenes, or a general list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..demo.scenes import caption, prompt_set
from ..records import BadInput, read_text
from .resolve import Model

CATEGORIES = 5  # of the demo's scenes
GENERAL_PROMPTS = (
    "a red bicycle leaning against a yellow wall",
    "a portrait of an old fisherman, soft window light",
    "two cats sleeping on a blue sofa",
    "a bowl of ramen with an egg and spring onions, seen from above",
    "a snowy mountain village at dusk",
    "three green apples to the left of a glass jug",
    "a shop window with the word BAKERY in golden letters",
    "an astronaut riding a horse through a wheat field, oil painting",
    "a narrow street in Lisbon after rain",
    "a macro photograph of a dragonfly on a reed",
    "a wooden toy robot on a white table",
    "a poster that says OPEN AIR CINEMA above a film projector",
    "a lighthouse in a storm, long exposure",
    "five paper boats floating on a pond",
    "a corgi wearing a chef's hat in a kitchen",
    "an isometric drawing of a small library",
)


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


def read_prompts(path: Path | str) -> list[str]:
    """One prompt a line. Empty lines and comments are left out.

    A comment is a `#` alone or followed by a blank: `#1 dad mug` is a prompt. Lines end with a line
    feed only, since prompts copied from the web hold other separators (U+2028). Raises BadInput for
    a file without a prompt.
    """
    text = read_text(Path(path), "prompt file").removeprefix("\ufeff")
    lines = [line.strip() for line in text.split("\n")]
    prompts = [line for line in lines if line and not is_comment(line)]
    if not prompts:
        raise BadInput(
            f"prompt file {path} has no prompt", "one prompt a line", "write a prompt into it"
        )
    return prompts


def is_comment(line: str) -> bool:
    return line == "#" or line.startswith(("# ", "#\t"))


def scenes(per_category: int, split: str) -> list[tuple[str, dict[str, Any]]]:
    """(caption, item for the scene scorer) of the demo's prompts: the same ones each time."""
    return [(caption(scene), scene.as_dict()) for scene in prompt_set(per_category, split)]
