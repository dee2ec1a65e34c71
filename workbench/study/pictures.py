"""Pictures without anything but their pixels, all of the same length in bytes."""

from __future__ import annotations

import os
import zlib
from itertools import product
from pathlib import Path
from random import Random

from PIL import Image, ImageOps

TILES = 6  # a damaged picture is cut into TILES x TILES
END = 12  # bytes of a PNG's last part, IEND
HEAD = 12  # bytes of a part of a PNG beside its data: length, name, checksum
PADDING = HEAD + 64  # bytes that even the longest picture is padded with
PAD_NAME = b"paDd"  # ancillary, private, may be copied: readers pass over it


def save_plain(image: Image.Image, path: Path) -> int:
    """Write the pixels as PNG, nothing else. Returns the file's length in bytes.

    The level is fixed and no text, profile, date or palette is kept: files differ by pixels alone.
    """
    plain = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    plain.save(path, "PNG", compress_level=6)
    return path.stat().st_size


def padded(png: bytes, length: int) -> bytes:
    """The PNG with random bytes in a private part before its end, so that it has `length` bytes.

    Pictures of a study all get the same length: else the size would give a smooth one away, and X
    of ABX would be the same file as A or B.
    """
    data = os.urandom(length - len(png) - HEAD)
    checksum = zlib.crc32(PAD_NAME + data)
    padding = len(data).to_bytes(4, "big") + PAD_NAME + data + checksum.to_bytes(4, "big")
    return png[:-END] + padding + png[-END:]


def damaged(image: Image.Image, draws: Random) -> Image.Image:
    """The picture in tiles that have changed places, every second one in inverted colours: nobody
    who looks takes it for the better one, whatever the picture is.
    """
    width = image.width // TILES
    height = image.height // TILES
    places = list(product(range(0, TILES * width, width), range(0, TILES * height, height)))
    origins = sorted(places, key=lambda _: draws.random())
    spoiled = image.copy()
    for number, (place, origin) in enumerate(zip(places, origins, strict=True)):
        left, top = origin
        tile = image.crop((left, top, left + width, top + height))
        if (number + number // TILES) % 2:
            tile = ImageOps.invert(tile)
        spoiled.paste(tile, place)
    return spoiled
