"""Suites: the prompts that models are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import BadInput, Score, jsonfile, read_text
from ..records.prompts import read_prompts
from .statistics import Item


@dataclass(frozen=True)
class Suite:
    """Prompts to compare on. An item has a `prompt`, maybe a `category`, and what scorers need."""

    name: str
    items: list[Item]

    @property
    def prompts(self) -> list[str]:
        return [item["prompt"] for item in self.items]

    @property
    def categories(self) -> list[str]:
        """The category of each item; empty where one has none."""
        categories = [str(item.get("category") or "") for item in self.items]
        return categories if all(categories) else []

    @classmethod
    def load(cls, path: Path | str) -> Suite:
        """Read JSON lines (objects with `prompt` or `caption`), plain text with a prompt a line, or a
        table (.csv, .tsv) with a column `prompt`.

        Raises BadInput, naming the line, for what is neither, and for a missing, empty or not UTF-8
        file.
        """
        path = Path(path)
        text = read_text(path, "suite").removeprefix("\ufeff")
        # not splitlines: prompts copied from the web hold other separators (U+2028)
        lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        if not lines:
            expected = "a prompt a line, or JSON lines with a prompt"
            raise BadInput(f"suite {path} is empty", expected, "write a prompt into it")
        is_json = path.suffix.lower() in (".jsonl", ".json") or lines[0][1].startswith("{")
        if not is_json:
            return cls(path.stem, [{"prompt": prompt} for prompt in read_prompts(path)])
        return cls(path.stem, [parse_item(line, f"{path} line {n}") for n, line in lines])


def parse_item(line: str, where: str) -> Item:
    """An item from a line of JSON. Raises BadInput, naming `where`, for one without a prompt."""
    try:
        item = jsonfile.parse(line)
    except jsonfile.JSONError as error:
        found = f"{where} is not JSON ({error})"
        raise BadInput(found, "an object with a prompt", "fix that line") from None
    prompt = prompt_of(item)
    if not isinstance(prompt, str) or not prompt.strip():
        expected = "a text under `prompt` or `caption`"
        raise BadInput(f"{where} has no prompt", expected, "add one")
    category = item.get("category", "")
    if not isinstance(category, str):
        raise BadInput(f"{where}: category {category!r:.80}", "a text", "quote it")
    if category in Score.model_fields:
        found = f"{where}: category {item['category']}"
        raise BadInput(found, "another name: scores have a figure of that name", "rename it")
    return {**item, "prompt": prompt}


def prompt_of(item: Any) -> Any:
    if not isinstance(item, dict):
        return None
    return item.get("prompt", item.get("caption"))
