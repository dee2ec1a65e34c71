"""Pictures with captions: a folder with metadata.jsonl (the Hub's ImageFolder layout), or
WebDataset shards (tar files).

Reading tar files takes the standard library alone; the webdataset package would bring its own
pipelines and loaders.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...records import BadInput, read_text

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")
CAPTION_SUFFIXES = ("txt", "caption", "json")
RATIOS = (9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9)  # height to width
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Packed:
    """A picture inside a tar file."""

    shard: Path
    name: str
    offset: int  # bytes
    size: int

    def __str__(self) -> str:
        return f"{self.shard.name}/{self.name}"

    def read(self) -> io.BytesIO:
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


Picture = Image.Image | Path | str | Packed
Pair = tuple[Picture, str]  # a picture and its caption


# --- folders and tar files ------------------------------------------------------------------------


def pictures_in(source: Path | str) -> list[Pair]:
    """(picture, caption) pairs of an image folder, a folder of tar files, or one tar file."""
    shards = tar_shards(Path(source))
    return shard_pictures(shards) if shards else image_folder(source)


def tar_shards(path: Path) -> list[Path]:
    """The tar files that a path stands for; none for an image folder."""
    if path.suffix == ".tar":
        return [path]
    if (path / "metadata.jsonl").exists():
        return []
    return sorted(path.glob("*.tar"))


def image_folder(folder: Path | str) -> list[Pair]:
    """(picture, caption) pairs of a folder with metadata.jsonl: `file_name` and `text`.

    A line that is not a JSON object gives an empty path or caption, which cache_images then names.
    """
    pairs: list[Pair] = []
    for line in read_text(Path(folder) / "metadata.jsonl", "captions").splitlines():
        if line.strip():
            row = json_object(line)
            pairs.append((Path(folder) / str(row.get("file_name", "")), caption_in(row)))
    if not pairs:
        raise BadInput(
            f"{folder}/metadata.jsonl without a picture",
            'lines of {"file_name", "text"}',
            "fill it",
        )
    return pairs


def shard_pictures(shards: list[Path]) -> list[Pair]:
    """(picture, caption) pairs of WebDataset shards.

    Members of one name belong together; the caption is in .txt, .caption or .json. A shard that is
    not a tar file, or ends too soon, is a pair with itself as the picture, which cache_images then
    names.
    """
    pairs: list[Pair] = []
    for shard in shards:
        members = _Members(shard)
        pairs += members.pairs()
    return pairs


@dataclass
class _Members:
    """The pictures and captions of one tar file, by the name they share."""

    shard: Path
    pictures: dict[str, Packed] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def pairs(self) -> Iterator[Pair]:
        damaged = False
        try:
            with tarfile.open(self.shard) as tar:
                for member in tar:
                    self._add(tar, member)
        except (tarfile.TarError, OSError, EOFError):
            damaged = True
        for key, picture in self.pictures.items():
            yield picture, self.captions.get(key, "")
        if damaged:
            yield self.shard, "a damaged shard"

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        folder, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        key = f"{folder}/{stem}"
        if not member.isfile():
            return
        if suffix.lower() in SUFFIXES:
            self.pictures[key] = Packed(self.shard, member.name, member.offset_data, member.size)
            return
        content = tar.extractfile(member) if suffix in CAPTION_SUFFIXES else None
        if content is None:
            return
        text = content.read().decode("utf-8", "replace")
        caption = caption_in(json_object(text)) if suffix == "json" else text.strip()
        self.captions.setdefault(key, caption)


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a line is; empty where it is none."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def caption_in(row: dict[str, Any]) -> str:
    for key in ("text", "caption", "prompt"):
        if key in row:
            return row[key] if isinstance(row[key], str) else ""
    return ""


# --- one picture ----------------------------------------------------------------------------------


def identity(picture: Picture) -> str:
    """What tells a picture from another one, also from one that later has its name.

    Of files path, size and time of change, without reading them; of pictures in memory their
    pixels.
    """
    if isinstance(picture, Image.Image):
        return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]
    if isinstance(picture, Packed):
        return f"{file_identity(picture.shard)}/{picture.name}@{picture.offset}"
    return file_identity(Path(picture))


def file_identity(path: Path) -> str:
    """Path, size and time of change of a file; the path alone where it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def with_header(picture: Picture) -> Image.Image:
    """The picture with its header read; its pixels are not read yet."""
    if isinstance(picture, Image.Image):
        return picture
    return Image.open(picture.read() if isinstance(picture, Packed) else picture)


def opened(picture: Picture) -> Image.Image:
    """The picture, read, in RGB."""
    return with_header(picture).convert("RGB")


def fault(item: str | Pair) -> str | None:
    """Why an item cannot be encoded; None where it can."""
    if isinstance(item, str):
        return None if item.strip() else "empty prompt"
    picture, caption = item
    if not isinstance(caption, str) or not caption.strip():
        return "no caption"
    try:
        opened(picture)
    except UNREADABLE as error:
        return f"not a readable picture ({str(error)[:100]})"
    return None


# --- aspect buckets -------------------------------------------------------------------------------


def sizes(side: int, unit: int) -> list[tuple[int, int]]:
    """(height, width) of the buckets, in multiples of `unit` pixels.

    About side x side pixels in the common aspect ratios.
    """
    buckets = {(side, side)}
    for ratio in RATIOS:
        height = nearest_multiple(side * math.sqrt(ratio), unit)
        width = nearest_multiple(side / math.sqrt(ratio), unit)
        buckets.add((height, width))
    return sorted(buckets)


def nearest_multiple(length: float, unit: int) -> int:
    return max(1, round(length / unit)) * unit


def bucket_of(picture: Picture, buckets: list[tuple[int, int]], side: int) -> tuple[int, int]:
    """The bucket whose aspect ratio is nearest; the square one for what cannot be read."""
    square = (side, side)
    try:
        width, height = with_header(picture).size
    except UNREADABLE:
        return square

    def distance(bucket: tuple[int, int]) -> tuple[float, bool]:
        ratio = bucket[0] / bucket[1] * width / max(height, 1)
        return abs(math.log(ratio)), bucket != square

    return min(buckets, key=distance)
