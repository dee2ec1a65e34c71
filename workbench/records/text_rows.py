"""Rows of text files that people made: JSON lines, a list in JSON, or a table with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import jsonfile
from .errors import BadInput

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class TextRow:
    """A row and the line that it ends on. values: empty where the line holds no object."""

    line: int
    values: Mapping[str, Any]


def json_rows(text: str) -> Iterator[TextRow]:
    """The objects of JSON lines, or of one list. Only a line feed ends a line: captions hold other
    separators (U+2028).
    """
    if text.lstrip().startswith("["):
        yield from listed_rows(text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield TextRow(number, json_object(line))


def listed_rows(text: str) -> Iterator[TextRow]:
    """The objects of a list; its texts are rows of a prompt."""
    try:
        entries = jsonfile.parse(text)
    except jsonfile.JSONError:
        entries = [None]
    for number, entry in enumerate(entries, 1):
        values = {"prompt": entry} if isinstance(entry, str) else entry
        yield TextRow(number, values if isinstance(values, dict) else {})


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is; empty where it is none."""
    try:
        row = jsonfile.parse(text)
    except jsonfile.JSONError:
        return {}
    return row if isinstance(row, dict) else {}


def table_rows(source: str, text: str) -> tuple[list[str], list[TextRow]]:
    """The columns and rows of a table; its delimiter is the comma, semicolon or tab of its header.

    Raises BadInput where a quote is not closed, or stands where none may: the rows behind it would
    be lost without a word.
    """
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        columns = [name.strip() for name in table.fieldnames or ()]
        table.fieldnames = columns
        for values in table:
            rows.append(TextRow(table.line_num, values))
    except csv.Error as error:
        raise BadInput(
            f"{source} line {table.line_num} is not a row of a table ({error})",
            'fields in which every " is doubled, in quotes that are closed',
            "correct that line, or write the table again",
        ) from None
    return columns, rows


def first_text(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The first text under one of the keys; of a list of texts, its first."""
    for key in keys:
        value = row.get(key)
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if isinstance(text, str) and text.strip():
                return text
    return ""
