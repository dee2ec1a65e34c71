"""The prompt files of the benchmarks, as their authors publish them; none is in this package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...records import BadInput, read_text
from ...records.text_rows import TextRow, table_rows
from ..statistics import Item
from ..suite import Suite
from .base import field, objects, text_field, unlike, whole_field

WHAT = "prompt file"
ONEIG_FOLDERS = {
    "Anime_Stylization": "anime",
    "Portrait": "human",
    "General_Object": "object",
    "Text_Rendering": "text",
    "Knowledge_Reasoning": "reasoning",
    "Multilingualism": "multilingualism",
}
LONGEST_NAME = 240  # bytes; the number and the ending make 251 of the 255 of a file system
UNIGEN_SPLITS = ("en", "en_long", "zh", "zh_long")


def geneval(path: Path) -> list[Item]:
    """evaluation_metadata.jsonl: {tag, include, .., prompt}."""
    items: list[Item] = []
    for row in objects(path, WHAT):
        about = {
            "prompt": text_field(row, "prompt", path),
            "category": text_field(row, "tag", path),
        }
        items.append({**row.values, **about})
    return items


def geneval2(path: Path) -> list[Item]:
    """geneval2_data.jsonl: {prompt, atom_count, vqa_list, skills}."""
    items: list[Item] = []
    for row in objects(path, WHAT):
        count = whole_field(row, "atom_count", path)
        about = {"prompt": text_field(row, "prompt", path), "category": f"{count} atoms"}
        items.append({**row.values, **about})
    return different(items, ("prompt",), path)


def dpg(path: Path) -> list[Item]:
    """The folder of one text file a prompt, named by its id; or JSON lines {id, prompt}."""
    if not path.is_dir():
        return different(dpg_rows(path), ("id",), path)
    items: list[Item] = []
    for file in sorted(path.glob("*.txt")):
        text = " ".join(read_text(file, WHAT).split())
        if text:
            items.append({"id": file.stem, "prompt": text})
    return found(items, path, "a folder of text files, one a prompt")


def dpg_rows(path: Path) -> list[Item]:
    items: list[Item] = []
    for row in objects(path, WHAT):
        items.append({"id": file_id(row, "id", path), "prompt": text_field(row, "prompt", path)})
    return items


def longtext(path: Path) -> list[Item]:
    """text_prompts.jsonl or text_prompts_zh.jsonl: {category, prompt, text, prompt_id, ..}."""
    items: list[Item] = []
    for row in objects(path, WHAT):
        for key in ("prompt", "category"):
            text_field(row, key, path)
        texts = field(row, "text", path)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise unlike(row, "text", path, "a list of texts")
        items.append({**row.values, "id": whole_field(row, "prompt_id", path)})
    return different(items, ("id",), path)


def oneig(path: Path) -> list[Item]:
    """OneIG-Bench.csv or OneIG-Bench-ZH.csv: category, id, prompt_en or prompt_cn, .."""
    columns, rows = table(path)
    column = next((name for name in ("prompt_en", "prompt_cn") if name in columns), "")
    if not column:
        expected = "OneIG-Bench.csv or OneIG-Bench-ZH.csv, with a column prompt_en or prompt_cn"
        raise BadInput(f"{path} has the columns {', '.join(columns)}", expected, "check the path")
    items: list[Item] = []
    for row in rows:
        name = text_field(row, "category", path)
        if name not in ONEIG_FOLDERS:
            expected = ", ".join(ONEIG_FOLDERS)
            raise BadInput(f"{path} line {row.line}: category {name}", expected, "check the file")
        about = {"id": file_id(row, "id", path), "category": ONEIG_FOLDERS[name]}
        items.append({"prompt": text_field(row, column, path), **about})
    return different(items, ("category", "id"), path)


def parti(path: Path) -> list[Item]:
    """PartiPrompts.tsv: Prompt, Category, Challenge, Note."""
    items: list[Item] = []
    for row in tab_rows(path):
        about = {"category": text_field(row, "Category", path)}
        challenge = row.values.get("Challenge") or ""
        items.append({"prompt": text_field(row, "Prompt", path), **about, "challenge": challenge})
    return items


def compbench(path: Path) -> list[Item]:
    """A file CATEGORY_val.txt with a prompt a line, or the folder of all of them."""
    files = sorted(path.glob("*_val.txt")) if path.is_dir() else [path]
    items: list[Item] = []
    for file in files:
        category = file.stem.removesuffix("_val")
        for line in read_text(file, WHAT).split("\n"):
            prompt = line.split("\t")[0].strip()
            if prompt:
                check_name(prompt, file)
                items.append({"prompt": prompt, "category": category})
    return found(items, path, "CATEGORY_val.txt with a prompt a line, or a folder of such files")


def check_name(prompt: str, file: Path) -> None:
    """Raises BadInput for a prompt that its scorer could not read back from a file's name."""
    if re.search(r"[/_\0]", prompt) or len(prompt.encode()) > LONGEST_NAME:
        raise BadInput(
            f"{file}: the prompt {prompt[:60]!r}",
            f"one without / and _, of at most {LONGEST_NAME} bytes: its picture is named by it",
            "shorten it",
        )


def unigen(path: Path) -> list[Item]:
    """test_prompts_{en,en_long,zh,zh_long}.csv: index, prompt_*, ..; or their folder. The
    checkpoints of a prompt are its scorer's, which leaves them beside its results.
    """
    files = sorted(path.glob("test_prompts_*.csv")) if path.is_dir() else [path]
    items: list[Item] = []
    for file in files:
        split = file.stem.removeprefix("test_prompts_")
        if split not in UNIGEN_SPLITS:
            expected = " or ".join(f"test_prompts_{name}.csv" for name in UNIGEN_SPLITS)
            raise BadInput(f"prompt file {file.name}", expected, "keep the official name")
        for row in table(file)[1]:
            about = {"id": whole_field(row, "index", file), "split": split}
            items.append({"prompt": text_field(row, f"prompt_{split[:2]}", file), **about})
    items = found(items, path, "test_prompts_en.csv, or a folder of such files")
    return different(items, ("split", "id"), path)


def plain(path: Path) -> list[Item]:
    """Any suite: a prompt a line, JSON lines, or a table."""
    return Suite.load(path).items


def nothing(path: Path) -> list[Item]:
    """Of prompts that are ours: they come from the demo."""
    return []


def table(path: Path) -> tuple[list[str], list[TextRow]]:
    text = read_text(path, WHAT).removeprefix("\ufeff")
    columns, rows = table_rows(str(path), text)
    return columns, list(found(rows, path, "a table with a header"))


def tab_rows(path: Path) -> list[TextRow]:
    """The rows of a table with tabs, in which quotes are characters like others."""
    text = read_text(path, WHAT).removeprefix("\ufeff")
    lines = [line.removesuffix("\r").split("\t") for line in text.split("\n")]
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if any(cells):
            rows.append(TextRow(number, dict(zip(lines[0], cells, strict=False))))
    return list(found(rows, path, "a table with a header"))


def found(items: Any, path: Path, expected: str) -> Any:
    """The items. Raises BadInput for none."""
    if not items:
        raise BadInput(f"{WHAT} {path} has no prompt", expected, "check the path")
    return items


def file_id(row: TextRow, key: str, path: Path) -> str:
    """An id that a picture is named by. Raises BadInput where it cannot name a file."""
    text = str(field(row, key, path)).strip()
    if not re.fullmatch(r"[^/\\.\0]{1,100}", text):
        raise unlike(row, key, path, "a name of a file, without / and .")
    return text


def different(items: Sequence[Item], keys: tuple[str, ...], path: Path) -> list[Item]:
    """The items. Raises BadInput where two are named alike: their pictures would be one file."""
    numbers: dict[tuple[str, ...], int] = {}
    for number, item in enumerate(items, 1):
        name = tuple(str(item[key]) for key in keys)
        if name in numbers:
            shown = " ".join(name)
            raise BadInput(
                f"{WHAT} {path}: prompts {numbers[name]} and {number} are both {shown:.60}",
                f"one prompt for each {' and '.join(keys)}",
                "leave one of them out",
            )
        numbers[name] = number
    return list(items)


def numbered(items: Sequence[Item], seeds: int) -> list[Item]:
    """The item of each picture, with the number of its prompt as `index`."""
    rows: list[Item] = []
    for number, item in enumerate(items):
        rows += [{**item, "index": number}] * seeds
    return rows
