"""What a benchmark is: a row of the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...records import BadInput, jsonfile, read_text
from ...records.text_rows import TextRow, json_rows
from ..statistics import Item
from .values import Result


@dataclass(frozen=True)
class Pictures:
    """One model's pictures of a benchmark.

    name: of the model, as a folder. files: prompt by prompt and seed by seed, `seeds` of each.
    """

    name: str
    items: Sequence[Item]
    seeds: int
    files: Sequence[Path]

    def of(self, number: int) -> Sequence[Path]:
        """The pictures of prompt `number`."""
        return self.files[number * self.seeds : (number + 1) * self.seeds]


@dataclass(frozen=True)
class Scored:
    """What results are matched with: the prompts, and which of the model's pictures there are."""

    name: str
    items: Sequence[Item]
    seeds: int


@dataclass(frozen=True)
class Benchmark:
    """A row of the table.

    title, source, licence: of the benchmark. prompts: what its prompt file is, "" where the
    prompts are ours. seeds: pictures per prompt that its scorer takes. read: the items of a prompt
    file or folder; an item has `prompt` and what the layout and the results need. write: lays one
    model's pictures out under a folder as the scorer expects them. score: label -> values, from
    the files that the scorer left. scorer: how it is run, in a line. fixed: whether its scorer
    takes exactly `seeds` pictures of a prompt.
    """

    title: str
    source: str
    licence: str
    prompts: str
    seeds: int
    read: Callable[[Path], list[Item]]
    write: Callable[[Pictures, Path], None]
    score: Callable[[Sequence[Path], Scored], Mapping[str, Result]]
    scorer: str
    fixed: bool = False

    @property
    def about(self) -> str:
        return f"{self.title}, {self.licence}"


# --- reading rows ---------------------------------------------------------------------------------


def objects(path: Path, what: str) -> list[TextRow]:
    """The objects of a file of JSON lines, or of one list. Raises BadInput for an empty file."""
    rows = list(json_rows(read_text(path, what).removeprefix("\ufeff")))
    if not rows:
        raise BadInput(f"{what} {path} is empty", "a JSON object a line", "check the path")
    return rows


def field(row: TextRow, key: str, path: Path) -> Any:
    """A value of a row. Raises BadInput, naming the line, where it has none."""
    value = row.values.get(key)
    if value is None or value == "":
        raise BadInput(
            f"{path} line {row.line} has no {key}", f"a row with {key}", "check the file"
        )
    return value


def text_field(row: TextRow, key: str, path: Path) -> str:
    """A text of a row. Raises BadInput for anything else."""
    value = field(row, key, path)
    if not isinstance(value, str) or not value.strip():
        raise unlike(row, key, path, "a text")
    return value


def whole_field(row: TextRow, key: str, path: Path) -> int:
    """A whole number of a row, 0 or more, also one that is written as text. Raises BadInput."""
    value = field(row, key, path)
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()):
        raise unlike(row, key, path, "a whole number")
    return int(text)


def number_field(row: TextRow, key: str, path: Path) -> float:
    """A finite number of a row, also one that is written as text. Raises BadInput."""
    value = field(row, key, path)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise unlike(row, key, path, "a number")
    return number


def unlike(row: TextRow, key: str, path: Path, expected: str) -> BadInput:
    shown = f"{row.values[key]!r:.60}"
    return BadInput(f"{path} line {row.line}: {key} {shown}", expected, "check the file")


def read_json(path: Path, what: str) -> Any:
    """Plain data of a JSON file. Raises BadInput."""
    return jsonfile.parse_as(read_text(path, what), str(path), what)
