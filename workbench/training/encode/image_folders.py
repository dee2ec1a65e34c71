"""Folders of pictures with captions, as people and the Hub have them.

Captions are in a metadata file (jsonl, csv or tsv, the Hub's ImageFolder layout) of the folder or of
its sub-folders, or in a text file beside each picture.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...records import BadInput, read_text
from ...records.text_rows import TextRow, first_text, json_object, json_rows, table_rows

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "avif")
UNREAD = ("heic", "heif", "jxl", "raw", "cr2", "nef", "dng", "psd", "svg", "mp4")
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar", ".gz")
CAPTION_SUFFIXES = ("txt", "caption", "json")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
TEXTS = ("txt", "json", "jsonl", "csv", "tsv", "xlsx", "parquet", "yaml")
FILE_KEYS = ("file_name", "image", "file", "filename", "path", "image_path", "img", "image_file")
CAPTION_KEYS = ("text", "caption", "prompt", "captions", "texts", "prompts", "description")
EXPECTED = (
    "metadata.jsonl or metadata.csv (columns file_name, text), or a .txt beside each picture, "
    "or tar files"
)


def image_folder(folder: Path | str) -> list[tuple[Path, str]]:
    """(picture, caption) pairs of a folder and its sub-folders.

    A row or picture that lacks something gives the name of its line, or an empty caption, which
    cache_images then names. Raises BadInput for a folder of another layout, which is named.
    """
    root = Path(folder)
    files = metadata_files(root)
    pairs = [] if files else sidecar_pairs(root)
    for file in files:
        known = {picture for picture, _ in pairs}  # tables of two formats name each picture twice
        pairs += [pair for pair in metadata_pairs(file, root) if pair[0] not in known]
    if not pairs:
        raise no_pictures(root, files)
    return pairs


def no_pictures(root: Path, files: list[Path]) -> BadInput:
    """The error of a folder without a picture, by what is there instead."""
    place = ", ".join(str(file) for file in files)
    others = [file.name for file in visible(root, "*")]
    do = "fill it, or name another folder"
    if others and not files:
        place = f"{root} ({', '.join(others[:4])})"
        if others[0].lower().endswith(ARCHIVES):
            do = f"unpack {others[0]}"
        elif suffix_of(Path(others[0])) in UNREAD:
            do = "convert the pictures to JPEG, PNG or WebP"
    return BadInput(f"{place or root} without a picture", EXPECTED, do)


def metadata_files(root: Path) -> list[Path]:
    """The metadata files of a folder and its sub-folders."""
    files = []
    for name in METADATA:
        files += visible(root, name)
    return files


def visible(root: Path, pattern: str) -> list[Path]:
    """Files below a folder that match, without those in hidden folders. Links to nothing count."""
    out = []
    for file in sorted(root.rglob(pattern)):
        parts = file.relative_to(root).parts
        dead = file.is_symlink() and not file.exists()
        if (dead or file.is_file()) and not any(part.startswith(".") for part in parts):
            out.append(file)
    return out


# --- a metadata file ------------------------------------------------------------------------------


def metadata_pairs(file: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """(picture, caption) pairs of a metadata file; paths are relative to its own folder.

    A row that names no picture has its own line in the picture's place.
    """
    text = read_text(file, "captions").removeprefix("\ufeff")
    rows = json_rows(text) if file.suffix == ".jsonl" else caption_table(file, text)
    for row in rows:
        name = first_text(row.values, FILE_KEYS)
        picture = file.with_name(f"{file.name} line {row.line}")
        if name:
            picture = picture_of(name, file.parent, root)
        yield picture, caption_in(row.values)


def caption_table(file: Path, text: str) -> list[TextRow]:
    """The rows of a table. Raises BadInput for a header without a picture or a caption."""
    columns, rows = table_rows(str(file), text)
    if not set(columns) & set(FILE_KEYS) or not set(columns) & set(CAPTION_KEYS):
        found = f"{file} has the columns {', '.join(columns) or 'none'}"
        raise BadInput(found, "file_name and text", "rename the columns")
    return rows


def picture_of(name: str, folder: Path, root: Path) -> Path:
    r"""The file that a row names. Names with `\`, in the other form of Unicode (macOS writes é as two
    letters), with a suffix in other letters, and those relative to the data set's root instead of
    the metadata file's folder, are followed where the picture is there.
    """
    for spelling in spellings(name):
        for place in (folder, root, root.parent):
            if (place / spelling).is_file():
                return place / spelling
    return folder / name


def spellings(name: str) -> list[str]:
    """A file's name as a row has it, and as the file may be called."""
    slashed = name.replace("\\", "/")
    out = [name, slashed]
    for form in ("NFC", "NFD"):
        out.append(unicodedata.normalize(form, slashed))
    stem, dot, suffix = slashed.rpartition(".")
    out += [f"{stem}{dot}{suffix.lower()}", f"{stem}{dot}{suffix.upper()}"]
    return list(dict.fromkeys(out))


def caption_in(row: Mapping[str, Any]) -> str:
    return first_text(row, CAPTION_KEYS)


# --- a text file beside each picture --------------------------------------------------------------


def sidecar_pairs(root: Path) -> list[tuple[Path, str]]:
    """(picture, caption) pairs of pictures with a caption file of their name beside them.

    Raises BadInput for pictures none of which has one.
    """
    pictures = [file for file in visible(root, "*") if suffix_of(file) in SUFFIXES]
    pairs = [(file, sidecar_caption(file)) for file in pictures]
    if pairs and not any(caption for _, caption in pairs):
        raise no_captions(root, pictures)
    return pairs


def no_captions(root: Path, pictures: list[Path]) -> BadInput:
    """The error of pictures without captions. Names files that may hold them under another name."""
    found = f"{root} has {len(pictures)} pictures ({pictures[0].name}) and no captions"
    tables = [file.name for file in visible(root, "*") if suffix_of(file) in TEXTS]
    if not tables:
        return BadInput(found, EXPECTED, "write the captions")
    do = f"if {tables[0]} holds them, write it as metadata.jsonl or metadata.csv"
    return BadInput(f"{found} beside them, but {', '.join(tables[:3])}", EXPECTED, do)


def sidecar_caption(picture: Path) -> str:
    """The caption in the text file beside a picture (a.txt or a.jpg.txt of a.jpg); empty where there
    is none.
    """
    for stem in (picture.stem, picture.name):
        for suffix in CAPTION_SUFFIXES:
            for spelling in (suffix, suffix.upper()):
                file = picture.with_name(f"{stem}.{spelling}")
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
