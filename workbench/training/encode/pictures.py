"""Pictures with captions: an image folder (`image_folders`), or WebDataset shards (tar files); rows
of other data sets are in `dataset_rows`.

Reading tar files takes the standard library alone; the webdataset package would bring its own
pipelines and loaders.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageCms, ImageOps

from ...models.folders import note
from ...records import BadInput
from .image_folders import CAPTION_SUFFIXES, METADATA, SUFFIXES, caption_text, image_folder

RATIOS = (9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9)  # height to width
SMALLEST = 8  # pixels a side; smaller pictures are spacers and placeholders
LONGEST = 8  # times the other side; of longer ones most would be cut off
ORIENTATION = 0x0112  # the EXIF tag
SRGB = ImageCms.createProfile("sRGB")
LYING = (5, 6, 7, 8)  # its values that exchange width and height
WHITE = (255, 255, 255, 255)
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
NOT_DECODED = "\ufffd"  # what stands for bytes that are no UTF-8
# what Pillow raises for broken files, by format
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@runtime_checkable
class Stored(Protocol):
    """A picture inside a larger file. identity: tells it from others, also from a later one there."""

    @property
    def identity(self) -> str: ...

    def read(self) -> io.BytesIO: ...


@dataclass(frozen=True)
class Packed:
    """A picture inside a tar file."""

    shard: Path
    name: str
    offset: int  # bytes
    size: int

    def __str__(self) -> str:
        return f"{self.shard.name}/{self.name}"

    @property
    def identity(self) -> str:
        return f"{file_identity(self.shard)}/{self.name}@{self.offset}"

    def read(self) -> io.BytesIO:
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


Picture = Image.Image | Path | str | Stored
Pair = tuple[Picture, str]  # a picture and its caption


# --- folders and tar files ------------------------------------------------------------------------


def pictures_in(source: Path | str) -> list[Pair]:
    """(picture, caption) pairs of an image folder, a folder of tar files, or one tar file."""
    shards = tar_shards(Path(source))
    return shard_pictures(shards) if shards else [*image_folder(source)]


def tar_shards(path: Path) -> list[Path]:
    """The tar files that a path stands for; none for an image folder."""
    if path.suffix == ".tar":
        return [path]
    if any((path / name).exists() for name in METADATA):
        return []
    return sorted(path.glob("*.tar")) or sorted(path.glob("*/*.tar"))


def shard_pictures(shards: list[Path]) -> list[Pair]:
    """(picture, caption) pairs of WebDataset shards.

    Members of one name belong together; the caption is in .txt, .caption or .json. A shard that is
    not a tar file, or ends too soon, is a pair with itself as the picture, which cache_images then
    names. Raises BadInput for compressed shards, and for shards without a picture.
    """
    pairs: list[Pair] = []
    others: list[str] = []
    for shard in shards:
        check_plain(shard)
        members = _Members(shard)
        pairs += members.pairs()
        others += members.others[:3]
    if not pairs:
        some = f" ({', '.join(others[:3])})" if others else ""
        raise BadInput(
            f"{shards[0]} has no picture{some}",
            "pictures with captions of the same name: 0.jpg, 0.txt",
            "name other training data",
        )
    return pairs


def check_plain(shard: Path) -> None:
    """Refuse a compressed tar file: pictures are read from their place in the file."""
    with suppress(OSError), open(shard, "rb") as file:
        head = file.read(6)
        for magic, program in COMPRESSED.items():
            if head.startswith(magic):
                found = f"{shard} is a tar file compressed by {program}"
                raise BadInput(found, "a tar file as it is", f"unpack it with {program} -d")


@dataclass
class _Members:
    """The pictures and captions of one tar file, by the name they share: that up to the first dot,
    or up to the last one where no picture has the first. others: names that are neither.
    """

    shard: Path
    pictures: dict[str, Packed] = field(default_factory=dict)
    more_dots: dict[str, Packed] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def pairs(self) -> Iterator[Pair]:
        damaged = False
        try:
            with tarfile.open(self.shard, "r:") as tar:
                for member in tar:
                    self._add(tar, member)
        except (tarfile.TarError, OSError, EOFError):
            damaged = True
        for key, picture in self.pictures.items():
            yield picture, self.captions.get(key, "")
        for key, picture in self.more_dots.items():
            first = _key(picture.name, longest=False)
            if first not in self.pictures:  # 1.mask.png beside 1.jpg is a mask, not trained on
                yield picture, self.captions.get(key) or self.captions.get(first, "")
        if damaged:
            yield self.shard, "a damaged shard"

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member.name.rpartition("/")[2]
        suffixes = name.partition(".")[2].lower()
        suffix = suffixes.rpartition(".")[2]
        if not member.isfile() or name.startswith("."):
            return
        if suffix in SUFFIXES:
            packed = Packed(self.shard, member.name, member.offset_data, member.size)
            if suffixes == suffix:
                self.pictures[_key(member.name, longest=False)] = packed
            else:
                self.more_dots[_key(member.name, longest=True)] = packed
            return
        self.others.append(member.name)
        content = tar.extractfile(member) if suffix in CAPTION_SUFFIXES else None
        if content is None:
            return
        caption = caption_text(content.read().decode("utf-8", "replace"), suffix)
        if caption:  # a .json may hold other facts than the caption
            self.captions.setdefault(_key(member.name, longest=suffixes != suffix), caption)


def _key(name: str, *, longest: bool) -> str:
    """A member's name without its suffix: behind its last dot, or behind its first."""
    folder, _, file = name.rpartition("/")
    stem = file.rpartition(".")[0] if longest else file.partition(".")[0]
    return f"{folder}/{stem}"


# --- one picture ----------------------------------------------------------------------------------


def identity(picture: Picture) -> str:
    """What tells a picture from another one, also from one that later has its name.

    Of files path, size and time of change, without reading them; of pictures in memory their
    pixels.
    """
    if isinstance(picture, Image.Image):
        return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]
    if isinstance(picture, Stored):
        return picture.identity
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
    return Image.open(picture.read() if isinstance(picture, Stored) else picture)


def opened(picture: Picture) -> Image.Image:
    """The picture, read, in RGB: upright by its EXIF orientation, 16 bits scaled to 8, colours of
    another profile in sRGB, transparent pixels on white, of an animation the first frame.
    """
    image = with_header(picture)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return scaled_down(image)
    profile = image.info.get("icc_profile")
    if not image.has_transparency_data:
        return in_srgb(image, profile)
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if np.asarray(alpha).min() < 255:
        note("pictures with transparent pixels are put on white")
    colours = in_srgb(image.convert("RGB"), profile)
    return Image.composite(colours, Image.new("RGB", image.size, WHITE[:3]), alpha)


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in RGB, by its colour profile where it has another one than sRGB: photographs of
    telephones are in Display P3, those for print in CMYK.
    """
    if image.mode == "P":
        image = image.convert("RGB")
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image.convert("RGB")
    try:
        own = ImageCms.getOpenProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, own, SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged, or of other colours
        return image.convert("RGB")
    assert converted is not None
    return converted


def scaled_down(image: Image.Image) -> Image.Image:
    """A greyscale picture of more than 8 bits in RGB. Integers are of 16 bits, unless all fit into
    8; floats are from 0 to 1, unless one is larger: then to 255.
    """
    values = np.asarray(image).astype(np.float32)  # (H, W)
    largest = float(values.max())
    if image.mode == "F":
        factor = 255.0 if largest <= 1 else 1.0
    elif image.mode == "I" and largest <= 255:
        factor = 1.0
    else:
        factor = 1 / 257
    grey = np.nan_to_num(values * factor).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def upright_size(picture: Picture) -> tuple[int, int]:
    """(width, height) as the picture is seen, from its header."""
    image = with_header(picture)
    width, height = image.size
    if image.getexif().get(ORIENTATION) in LYING:
        return height, width
    return width, height


def fault(item: str | Pair) -> str | None:
    """Why an item cannot be encoded; None where it can."""
    if isinstance(item, str):
        return None if item.strip() else "empty prompt"
    picture, caption = item
    if not isinstance(caption, str) or not caption.strip():
        return "no caption"
    if NOT_DECODED in caption:
        return "its caption is not UTF-8 text"
    if isinstance(picture, Path) and not picture.is_file():
        return "not a readable picture (there is no such file)"
    try:
        width, height = opened(picture).size
    except UNREADABLE as error:
        return f"not a readable picture ({str(error)[:100]})"
    if min(width, height) < SMALLEST:
        return f"{width} x {height} pixels: too small"
    if max(width, height) > LONGEST * min(width, height):
        return f"{width} x {height} pixels: too long, most of it would be cut off"
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
        width, height = upright_size(picture)
    except UNREADABLE:
        return square

    def distance(bucket: tuple[int, int]) -> tuple[float, bool]:
        ratio = bucket[0] / bucket[1] * width / max(height, 1)
        return abs(math.log(ratio)), bucket != square

    return min(buckets, key=distance)
