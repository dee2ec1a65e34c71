"""Nothing of the machine or its user goes into a release: paths become names, and the finished
folder is searched before it is shown to anyone.
"""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any

from safetensors import safe_open

from ..records import BadInput

ABSOLUTE = re.compile(r"(?:[A-Za-z]:[\\/]|/|~/|~$)")
TEXT_SUFFIXES = {".json", ".yaml", ".yml", ".md", ".txt", ".py", ".svg", ".html", ".csv", ".jinja"}
VOCABULARIES = {"tokenizer.json", "vocab.json", "merges.txt"}  # words of everybody, paths too
PRIVATE = {
    "a path of a home folder": re.compile(
        r"(?:/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})[\w.-]+|/root/[\w.-]+"
    ),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
}


def without_paths(data: Any) -> Any:
    """Plain data in which every absolute path is its last name."""
    if isinstance(data, dict):
        return {key: without_paths(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_paths(item) for item in data]
    if isinstance(data, str) and ABSOLUTE.match(data):
        return PureWindowsPath(data.rstrip("/\\")).name or "folder"
    return data


def check_private(folder: Path, *more: Path) -> None:
    """Raises BadInput for a file that names a home folder, one of the paths `more`, or a token."""
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        text = text_of(file)
        for what, pattern in PRIVATE.items():
            match = pattern.search(text)
            if match is not None:
                raise leak(file.relative_to(folder), what, match[0])
        for path in more:
            if str(path) in text:
                raise leak(file.relative_to(folder), "a path of this machine", str(path))


def text_of(file: Path) -> str:
    """What a person could read in a file: its text, or the names and notes in the header of a
    safetensors file; empty of others.
    """
    if file.name in VOCABULARIES:
        return ""
    if file.suffix in TEXT_SUFFIXES:
        return file.read_text(encoding="utf-8", errors="replace")
    if file.suffix != ".safetensors":
        return ""
    with safe_open(file, framework="pt") as weights:
        return " ".join([*(weights.metadata() or {}).values(), *weights.keys()])


def leak(file: Path, what: str, text: str) -> BadInput:
    shown = text if not text.startswith("hf_") else "hf_..."
    return BadInput(
        f"{file} of the release would hold {what} ({shown})",
        "nothing of this machine or its user",
        "remove it from the student's file of that name",
    )
