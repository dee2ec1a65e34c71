"""Pictures in the folders and under the names that each benchmark's own scorer reads.

Pictures are linked, or copied where the disk has no links. Files that are there and no older than
their pictures stay, so that a second run only adds what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...records import draft_of, link_or_copy, write_atomic
from ..statistics import Item
from .base import Pictures


def geneval(pictures: Pictures, folder: Path) -> None:
    """MODEL/00000/samples/00000.png, and MODEL/00000/metadata.jsonl."""
    for number, item in enumerate(pictures.items):
        place = folder / pictures.name / f"{number:05}"
        write_atomic(place / "metadata.jsonl", json.dumps(without(item, "category")))
        for seed, file in enumerate(pictures.of(number)):
            link(file, place / "samples" / f"{seed:05}.png")


def geneval2(pictures: Pictures, folder: Path) -> None:
    """MODEL.json, {prompt: path}, and the pictures in MODEL/."""
    paths = {}
    for number, item in enumerate(pictures.items):
        target = folder / pictures.name / f"{number:05}.png"
        link(pictures.of(number)[0], target)
        paths[item["prompt"]] = str(target.absolute())
    text = json.dumps(paths, ensure_ascii=False, indent=1) + "\n"
    write_atomic(folder / f"{pictures.name}.json", text)


def dpg(pictures: Pictures, folder: Path) -> None:
    """MODEL/ID.png, the four pictures of a prompt in a grid of 2 x 2."""
    for number, item in enumerate(pictures.items):
        grid(pictures.of(number), folder / pictures.name / f"{item['id']}.png")


def longtext(pictures: Pictures, folder: Path) -> None:
    """MODEL/0000_1.png: the prompt's id, then pictures from 1 on."""
    for number, item in enumerate(pictures.items):
        for seed, file in enumerate(pictures.of(number), 1):
            link(file, folder / pictures.name / f"{item['id']:04}_{seed}.png")


def oneig(pictures: Pictures, folder: Path) -> None:
    """CLASS/MODEL/ID.webp, the four pictures of a prompt in a grid of 2 x 2."""
    for number, item in enumerate(pictures.items):
        target = folder / item["category"] / pictures.name / f"{item['id']}.webp"
        grid(pictures.of(number), target)


def compbench(pictures: Pictures, folder: Path) -> None:
    """MODEL/CATEGORY/samples/PROMPT_000000.png, numbered through each category."""
    counts: dict[str, int] = {}
    for number, item in enumerate(pictures.items):
        category = item["category"]
        for file in pictures.of(number):
            count = counts.setdefault(category, 0)
            place = folder / pictures.name / category / "samples"
            link(file, place / f"{item['prompt']}_{count:06}.png")
            counts[category] += 1


def unigen(pictures: Pictures, folder: Path) -> None:
    """SPLIT/MODEL/ID_0.png .. ID_3.png; splits are en, en_long, zh and zh_long."""
    for number, item in enumerate(pictures.items):
        for seed, file in enumerate(pictures.of(number)):
            link(file, folder / item["split"] / pictures.name / f"{item['id']}_{seed}.png")


def plain(pictures: Pictures, folder: Path) -> None:
    """MODEL/00000_0.png, and MODEL.jsonl with the prompt of each file."""
    lines = []
    for number, item in enumerate(pictures.items):
        for seed, file in enumerate(pictures.of(number)):
            name = f"{number:05}_{seed}.png"
            link(file, folder / pictures.name / name)
            lines.append(json.dumps({"file": name, **item}, ensure_ascii=False))
    write_atomic(folder / f"{pictures.name}.jsonl", "\n".join(lines) + "\n")


# --- files ----------------------------------------------------------------------------------------


def without(item: Item, key: str) -> Item:
    return {name: value for name, value in item.items() if name != key}


def link(source: Path, target: Path) -> None:
    """A picture under another name."""
    if is_current(target, [source]):
        return
    target.unlink(missing_ok=True)
    link_or_copy(source, target)


def grid(sources: Sequence[Path], target: Path) -> None:
    """Four pictures row by row, 2 x 2, in the format of the target's name."""
    if is_current(target, sources):
        return
    images = [Image.open(file).convert("RGB") for file in sources]
    width, height = images[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for number, image in enumerate(images):
        row, column = divmod(number, 2)
        whole.paste(image, (column * width, row * height))
    with draft_of(target) as draft:
        whole.save(draft, target.suffix[1:].upper())


def is_current(target: Path, sources: Sequence[Path]) -> bool:
    """Whether a file is there and no older than what it is made of."""
    if not target.is_file():
        return False
    made = target.stat().st_mtime_ns
    return all(source.stat().st_mtime_ns <= made for source in sources)
