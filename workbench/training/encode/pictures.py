"""Pictures with captions: a folder with metadata.jsonl (the Hub's ImageFolder layout), or
WebDataset shards (tar files).

Reading tar files takes the standard library alone; the webdataset package would bring its own
pipelines and loaders.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...records import BadInput, read_text

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")
RATIOS = (9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9)  # height to width


@dataclass(frozen=True)
class Packed:
    """A picture inside a tar file."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard.name}/{self.name}"

    def read(self) -> io.BytesIO:
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


Picture = Image.Image | Path | str | Packed
Pair = tuple[Picture, str]


def pictures_in(source: Path | str) -> list[Pair]:
    """(picture, caption) pairs of an image folder, a folder of tar files, or one tar file."""
    path = Path(source)
    shards = (
        [path]
        if path.suffix == ".tar"
        else sorted(path.glob("*.tar"))
        if not (path / "metadata.jsonl").exists()
        else []
    )
    return shard_pictures(shards) if shards else image_folder(path)


def image_folder(folder: Path | str) -> list[Pair]:
    """(picture, caption) pairs of a folder with metadata.jsonl: `file_name` and `text`.

    A line that is no JSON object has an empty path or caption, which cache_images then names.
    """
    pairs: list[Pair] = []
    for line in read_text(Path(folder) / "metadata.jsonl", "captions").splitlines():
        if line.strip():
            row = _json(line)
            pairs.append((Path(folder) / str(row.get("file_name", "")), _caption(row)))
    if not pairs:
        raise BadInput(
            f"{folder}/metadata.jsonl names no picture", 'lines of {"file_name", "text"}', "fill it"
        )
    return pairs


def shard_pictures(shards: list[Path]) -> list[Pair]:
    """(picture, caption) pairs of WebDataset shards: members of one name belong together, the
    caption in .txt or .json.

    A shard that is no tar file, or ends too soon, is a pair with itself as the picture, which
    cache_images then names.
    """
    return [pair for shard in shards for pair in _members(shard)]


def _members(shard: Path) -> Iterator[Pair]:
    pictures: dict[str, Packed] = {}
    captions: dict[str, str] = {}
    broken = False
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                stem, _, suffix = member.name.rpartition("/")[2].partition(".")
                key = f"{member.name.rpartition('/')[0]}/{stem}"
                if not member.isfile():
                    continue
                if suffix.lower() in SUFFIXES:
                    pictures[key] = Packed(shard, member.name, member.offset_data, member.size)
                elif suffix in ("txt", "caption", "json"):
                    text = tar.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
                    captions.setdefault(
                        key, _caption(_json(text)) if suffix == "json" else text.strip()
                    )
    except (tarfile.TarError, OSError, EOFError):
        broken = True
    yield from ((picture, captions.get(key, "")) for key, picture in pictures.items())
    if broken:
        yield shard, "a broken shard"


def _json(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def _caption(row: dict[str, Any]) -> str:
    caption = row.get("text", row.get("caption", row.get("prompt", "")))
    return caption if isinstance(caption, str) else ""


def lazily(picture: Picture) -> Image.Image:
    """The picture's header; its pixels are not read yet."""
    if isinstance(picture, Image.Image):
        return picture
    return Image.open(picture.read() if isinstance(picture, Packed) else picture)


def opened(picture: Picture) -> Image.Image:
    return lazily(picture).convert("RGB")


def fault(item: Any) -> str | None:
    """Why an item cannot be encoded; None where it can."""
    if isinstance(item, str):
        return None if item.strip() else "empty prompt"
    picture, caption = item
    if not isinstance(caption, str) or not caption.strip():
        return "no caption"
    try:
        opened(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"not a readable picture ({str(error)[:100]})"
    return None


def sizes(side: int, unit: int) -> list[tuple[int, int]]:
    """(height, width) of the buckets: about side x side pixels in the common aspect ratios, in
    multiples of `unit`.
    """

    def near(length: float) -> int:
        return max(1, round(length / unit)) * unit

    return sorted(
        {(near(side * math.sqrt(r)), near(side / math.sqrt(r))) for r in RATIOS} | {(side, side)}
    )


def bucket_of(picture: Picture, buckets: list[tuple[int, int]], side: int) -> tuple[int, int]:
    """The bucket whose aspect ratio is nearest; the square one for what cannot be read."""
    try:
        width, height = lazily(picture).size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return side, side
    return min(
        buckets,
        key=lambda b: (abs(math.log(b[0] / b[1] * width / max(height, 1))), b != (side, side)),
    )
