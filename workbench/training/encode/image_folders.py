"""Folders of pictures with captions, as people and the Hub have them.

Captions are in a metadata file (jsonl or csv, the Hub's ImageFolder layout) of the folder or of its
sub-folders, or in a text file beside each picture.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...records import BadInput, jsonfile, read_text

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "avif")
CAPTION_SUFFIXES = ("txt", "caption", "json")
FILE_KEYS = ("file_name", "image", "file", "filename", "path", "image_path", "img", "image_file")
CAPTION_KEYS = ("text", "caption", "prompt", "captions", "texts", "prompts", "description")
EXPECTED = (
    "metadata.jsonl or metadata.csv (columns file_name, text), or a .txt beside each picture, "
    "or tar files"
)


def image_folder(folder: Path | str) -> list[tuple[Path, str]]:
    """(picture, caption) pairs of a folder and its sub-folders.

    A row or picture that lacks something gives an empty path or caption, which cache_images then
    names. Raises BadInput for a folder of another layout, which is named.
    """
    root = Path(folder)
    files = metadata_files(root)
    pairs = [] if files else sidecar_pairs(root)
    for file in files:
        known = {picture for picture, _ in pairs}  # tables of two formats name each picture twice
        pairs += [pair for pair in metadata_pairs(file, root) if pair[0] not in known]
    if not pairs:
        place = ", ".join(str(file) for file in files) or str(root)
        raise BadInput(f"{place} without a picture", EXPECTED, "fill it, or name another folder")
    return pairs


def metadata_files(root: Path) -> list[Path]:
    """The metadata files of a folder and its sub-folders."""
    return visible(root, "metadata.jsonl") + visible(root, "metadata.csv")


def visible(root: Path, pattern: str) -> list[Path]:
    """Files below a folder that match, without those in hidden folders."""
    out = []
    for file in sorted(root.rglob(pattern)):
        parts = file.relative_to(root).parts
        if file.is_file() and not any(part.startswith(".") for part in parts):
            out.append(file)
    return out


# --- a metadata file ------------------------------------------------------------------------------


def metadata_pairs(file: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """(picture, caption) pairs of a metadata file; paths are relative to its own folder."""
    text = read_text(file, "captions").removeprefix("\ufeff")
    rows = csv_rows(file, text) if file.suffix == ".csv" else json_rows(text)
    for row in rows:
        yield picture_of(first_text(row, FILE_KEYS), file.parent, root), caption_in(row)


def json_rows(text: str) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines. Only a line feed ends a line: captions hold other separators."""
    for line in text.split("\n"):
        if line.strip():
            yield json_object(line)


def csv_rows(file: Path, text: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a table with a header; its delimiter is the comma, semicolon or tab of the
    header. Raises BadInput for a header without a picture or a caption.
    """
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = columns
    if not set(columns) & set(FILE_KEYS) or not set(columns) & set(CAPTION_KEYS):
        found = f"{file} has the columns {', '.join(columns) or 'none'}"
        raise BadInput(found, "file_name and text", "rename the columns")
    yield from rows


def picture_of(name: str, folder: Path, root: Path) -> Path:
    r"""The file that a row names. Names with `\`, and those relative to the data set's root instead
    of the metadata file's folder, are followed where the picture is there.
    """
    slashed = name.replace("\\", "/")
    for path in (folder / name, folder / slashed, root / slashed, root.parent / slashed):
        if name and path.is_file():
            return path
    return folder / name


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a line is; empty where it is none."""
    try:
        row = jsonfile.parse(text)
    except jsonfile.JSONError:
        return {}
    return row if isinstance(row, dict) else {}


def caption_in(row: Mapping[str, Any]) -> str:
    return first_text(row, CAPTION_KEYS)


def first_text(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The first text under one of the keys; of a list of texts, its first."""
    for key in keys:
        value = row.get(key)
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if isinstance(text, str) and text.strip():
                return text
    return ""


# --- a text file beside each picture --------------------------------------------------------------


def sidecar_pairs(root: Path) -> list[tuple[Path, str]]:
    """(picture, caption) pairs of pictures with a caption file of their name beside them.

    Raises BadInput for pictures none of which has one.
    """
    pictures = [file for file in visible(root, "*") if suffix_of(file) in SUFFIXES]
    pairs = [(file, sidecar_caption(file)) for file in pictures]
    if pairs and not any(caption for _, caption in pairs):
        raise BadInput(
            f"{root} has {len(pairs)} pictures ({pictures[0].name}) and no captions",
            EXPECTED,
            "write the captions",
        )
    return pairs


def sidecar_caption(picture: Path) -> str:
    """The caption in the text file beside a picture; empty where there is none."""
    for suffix in CAPTION_SUFFIXES:
        for spelling in (suffix, suffix.upper()):
            file = picture.with_suffix(f".{spelling}")
            if file.is_file():
                text = file.read_text(encoding="utf-8-sig", errors="replace")
                return caption_text(text, suffix)
    return ""


def caption_text(text: str, suffix: str) -> str:
    """The caption that a file of this suffix holds."""
    text = text.removeprefix("\ufeff")
    return caption_in(json_object(text)) if suffix == "json" else text.strip()


def suffix_of(path: Path) -> str:
    return path.suffix.removeprefix(".").lower()
