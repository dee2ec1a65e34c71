"""Small files in the formats of the published benchmarks, and pictures of their prompts."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from workbench.comparison.benchmarks.base import Pictures, Scored
from workbench.comparison.benchmarks.table import BENCHMARKS

SIZE = 6


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def prompt_file(name: str, folder: Path) -> Path:
    """A small file in the format of the benchmark's own."""
    if name == "geneval":
        rows = [
            {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"},
            {"tag": "colors", "include": [{"class": "cup", "count": 1}], "prompt": "a red cup"},
            {"tag": "colors", "include": [{"class": "cup", "count": 1}], "prompt": "a blue cup"},
        ]
        return write_lines(folder / "evaluation_metadata.jsonl", rows)
    if name == "geneval2":
        rows = [
            {
                "prompt": "two cats",
                "atom_count": 2,
                "vqa_list": [["q", "a"]] * 2,
                "skills": ["count"],
            },
            {"prompt": "a cup", "atom_count": 3, "vqa_list": [["q", "a"]], "skills": ["object"]},
        ]
        return write_lines(folder / "geneval2_data.jsonl", rows)
    if name == "dpg":
        prompts = folder / "prompts"
        prompts.mkdir(parents=True)
        (prompts / "coco3.txt").write_text("A cat\nsits. ")
        (prompts / "0.txt").write_text("A field.")
        return prompts
    if name == "longtext-en":
        rows = [
            {"category": "sign", "prompt": "a sign", "text": ["OPEN", "all day"], "prompt_id": 7},
            {"category": "book", "prompt": "a book", "text": ["The Sea"], "prompt_id": 12},
        ]
        return write_lines(folder / "text_prompts.jsonl", rows)
    if name == "longtext-zh":
        rows = [
            {"category": "sign", "prompt": "招牌", "text": ["每日烘焙", "始于1998"], "prompt_id": 0}
        ]
        return write_lines(folder / "text_prompts_zh.jsonl", rows)
    if name == "oneig":
        rows = [
            {"category": "Portrait", "id": "000", "prompt_en": "a man", "prompt_length": "s"},
            {"category": "Text_Rendering", "id": "000", "prompt_en": "a sign, blue"},
        ]
        return write_table(folder / "OneIG-Bench.csv", rows)
    if name == "parti":
        file = folder / "PartiPrompts.tsv"  # as it is published, without quoting
        file.write_text(
            'Prompt\tCategory\tChallenge\tNote\n"G O" in paint\tFood & Beverage\tBasic\t\n'
        )
        return file
    if name == "t2i-compbench":
        (folder / "color_val.txt").write_text("a red cup\na blue cup\n")
        (folder / "shape_val.txt").write_text("a round cup\tnotes\n")
        return folder
    if name == "unigenbench":
        dims = '{"Testpoints": ["Style"], '  # one row of the published files is no JSON
        english = [
            {"index": 0, "prompt_en": "a cat", "sub_dims_en": dims},
            {"index": 1, "prompt_en": "a dog", "sub_dims_en": dims},
        ]
        chinese = [{"index": 0, "prompt_zh": "猫", "sub_dims_zh": '{"考点": ["风格"]}'}]
        write_table(folder / "test_prompts_en.csv", english)
        write_table(folder / "test_prompts_zh_long.csv", chinese)
        return folder
    (folder / "mine.txt").write_text("a cat\na dog\n")
    return folder / "mine.txt"


def pictures(name: str, folder: Path) -> Pictures:
    """Pictures of which each has its own grey, with the prompts of the made-up file."""
    source = folder / "source"
    source.mkdir(parents=True)
    row = BENCHMARKS[name]
    items = row.read(prompt_file(name, source))
    files = []
    for number in range(len(items) * row.seeds):
        file = folder / f"{number:04}.png"
        Image.new("RGB", (SIZE, SIZE), (10 * number, 0, 0)).save(file)
        files.append(file)
    return Pictures("model", items, row.seeds, files)


def run_of(name: str, tmp_path: Path) -> Scored:
    tmp_path.mkdir(parents=True, exist_ok=True)
    row = BENCHMARKS[name]
    return Scored("model", row.read(prompt_file(name, tmp_path)), row.seeds)
