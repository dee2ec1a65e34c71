"""Files of prompts, and the general list that stands for one."""

from __future__ import annotations

from pathlib import Path

from .errors import BadInput
from .files import read_text
from .text_rows import first_text, json_rows, table_rows

JSON, TABLES = (".json", ".jsonl", ".ndjson"), (".csv", ".tsv")
NOT_PROMPTS = (".yaml", ".yml", ".toml", ".py", ".html")
PROMPT_KEYS = ("prompt", "Prompt", "prompt_en", "caption", "text")

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

# what stands for it where prompts are classes: numbers that every ImageNet model has
CLASS_PROMPTS = tuple(str(number) for number in range(0, 1000, 50))


def general_prompts(classes: bool) -> list[str]:
    """The general list. classes: of a model whose prompts are classes."""
    return list(CLASS_PROMPTS if classes else GENERAL_PROMPTS)


def read_prompts(path: Path | str) -> list[str]:
    """One prompt a line; of JSON and of tables (.csv, .tsv) what stands under `prompt`, `caption` or
    `text`. Empty lines and comments are left out.

    A comment is a `#` alone or followed by a blank: `#1 dad mug` is a prompt. Lines end with a line
    feed only, since prompts copied from the web hold other separators (U+2028). Raises BadInput for
    a file without a prompt, and for rows that have none.
    """
    path = Path(path)
    text = read_text(path, "prompt file").removeprefix("\ufeff")
    suffix = path.suffix.lower()
    if suffix in NOT_PROMPTS:
        raise BadInput(
            f"prompt file {path} is a {suffix} file", "text, JSON lines or CSV", "check the path"
        )
    if suffix in (*JSON, *TABLES) or text.lstrip().startswith('{"'):
        prompts = prompts_of_rows(path, text, suffix in TABLES)
    else:
        lines = [line.strip() for line in text.split("\n")]
        prompts = [line for line in lines if line and not is_comment(line)]
    if not prompts:
        raise BadInput(
            f"prompt file {path} has no prompt", "one prompt a line", "write a prompt into it"
        )
    return prompts


def prompts_of_rows(path: Path, text: str, table: bool) -> list[str]:
    """The prompts of a table or of JSON. Raises BadInput for a row without one."""
    rows = table_rows(str(path), text)[1] if table else list(json_rows(text))
    prompts = []
    for row in rows:
        prompt = first_text(row.values, PROMPT_KEYS).strip()
        if not prompt:
            raise BadInput(
                f"prompt file {path} line {row.line} has no prompt",
                "a text under prompt, caption or text in every row, or plain text",
                "rename the column, or write one prompt a line",
            )
        prompts.append(prompt)
    return prompts


def is_comment(line: str) -> bool:
    return line == "#" or line.startswith(("# ", "#\t"))
