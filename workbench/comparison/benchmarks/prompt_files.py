"""The prompt files of the benchmarks, as their authors publish them; none is in this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...records import BadInput, jsonfile, read_text
from ...records.text_rows import TextRow, table_rows
from ..statistics import Item
from ..suite import Suite
from .base import field, objects

WHAT = "prompt file"
ONEIG_FOLDERS = {
    "Anime_Stylization": "anime",
    "Portrait": "human",
    "General_Object": "object",
    "Text_Rendering": "text",
    "Knowledge_Reasoning": "reasoning",
    "Multilingualism": "multilingualism",
}
UNIGEN_SPLITS = ("en", "en_long", "zh", "zh_long")


def geneval(path: Path) -> list[Item]:
    """evaluation_metadata.jsonl: {tag, include, .., prompt}."""
    items = []
    for row in objects(path, WHAT):
        about = {"prompt": field(row, "prompt", path), "category": field(row, "tag", path)}
        items.append({**row.values, **about})
    return items


def geneval2(path: Path) -> list[Item]:
    """geneval2_data.jsonl: {prompt, atom_count, vqa_list, skills}."""
    items = []
    for row in objects(path, WHAT):
        count = field(row, "atom_count", path)
        about = {"prompt": field(row, "prompt", path), "category": f"{count} atoms"}
        items.append({**row.values, **about})
    return items


def dpg(path: Path) -> list[Item]:
    """The folder of one text file a prompt, named by its id; or JSON lines {id, prompt}."""
    if not path.is_dir():
        rows = objects(path, WHAT)
        return [{"id": str(field(r, "id", path)), "prompt": field(r, "prompt", path)} for r in rows]
    items = []
    for file in sorted(path.glob("*.txt")):
        text = " ".join(read_text(file, WHAT).split())
        if text:
            items.append({"id": file.stem, "prompt": text})
    return found(items, path, "a folder of text files, one a prompt")


def longtext(path: Path) -> list[Item]:
    """text_prompts.jsonl or text_prompts_zh.jsonl: {category, prompt, text, prompt_id, ..}."""
    items = []
    for row in objects(path, WHAT):
        for key in ("prompt", "text", "category"):
            field(row, key, path)
        items.append({**row.values, "id": int(field(row, "prompt_id", path))})
    return items


def oneig(path: Path) -> list[Item]:
    """OneIG-Bench.csv or OneIG-Bench-ZH.csv: category, id, prompt_en or prompt_cn, .."""
    columns, rows = table(path)
    column = next((name for name in ("prompt_en", "prompt_cn") if name in columns), "")
    if not column:
        expected = "OneIG-Bench.csv or OneIG-Bench-ZH.csv, with a column prompt_en or prompt_cn"
        raise BadInput(f"{path} has the columns {', '.join(columns)}", expected, "check the path")
    items = []
    for row in rows:
        name = str(field(row, "category", path))
        if name not in ONEIG_FOLDERS:
            expected = ", ".join(ONEIG_FOLDERS)
            raise BadInput(f"{path} line {row.line}: category {name}", expected, "check the file")
        about = {"id": str(field(row, "id", path)), "category": ONEIG_FOLDERS[name]}
        items.append({"prompt": field(row, column, path), **about})
    return items


def parti(path: Path) -> list[Item]:
    """PartiPrompts.tsv: Prompt, Category, Challenge, Note."""
    items = []
    for row in table(path)[1]:
        about = {"category": str(field(row, "Category", path))}
        challenge = row.values.get("Challenge") or ""
        items.append({"prompt": field(row, "Prompt", path), **about, "challenge": challenge})
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
    if "/" in prompt or "_" in prompt or len(prompt.encode()) > 240:
        raise BadInput(
            f"{file}: the prompt {prompt:.60}",
            "one without / and _, of at most 240 bytes: its picture is named by it",
            "shorten it",
        )


def unigen(path: Path) -> list[Item]:
    """test_prompts_{en,en_long,zh,zh_long}.csv: index, prompt_*, sub_dims_*; or their folder."""
    files = sorted(path.glob("test_prompts_*.csv")) if path.is_dir() else [path]
    items: list[Item] = []
    for file in files:
        split = file.stem.removeprefix("test_prompts_")
        if split not in UNIGEN_SPLITS:
            expected = " or ".join(f"test_prompts_{name}.csv" for name in UNIGEN_SPLITS)
            raise BadInput(f"prompt file {file.name}", expected, "keep the official name")
        for row in table(file)[1]:
            items.append(unigen_item(row, split, file))
    return found(items, path, "test_prompts_en.csv, or a folder of such files")


def unigen_item(row: TextRow, split: str, file: Path) -> Item:
    language = split[:2]
    text = str(field(row, f"sub_dims_{language}", file))
    try:
        points = jsonfile.parse(text)["Testpoints"]
    except (jsonfile.JSONError, KeyError, TypeError):
        found_in = f"{file} line {row.line}: sub_dims_{language} {text[:60]}"
        raise BadInput(found_in, "JSON with Testpoints", "check the file") from None
    return {
        "prompt": field(row, f"prompt_{language}", file),
        "id": int(field(row, "index", file)),
        "split": split,
        "testpoints": points,
    }


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


def found(items: Any, path: Path, expected: str) -> Any:
    """The items. Raises BadInput for none."""
    if not items:
        raise BadInput(f"{WHAT} {path} has no prompt", expected, "check the path")
    return items


def numbered(items: Sequence[Item], seeds: int) -> list[Item]:
    """The item of each picture, with the number of its prompt as `index`."""
    rows: list[Item] = []
    for number, item in enumerate(items):
        rows += [{**item, "index": number}] * seeds
    return rows
