"""The words of the project: what a reader meets in docs, help, errors, docstrings and names.

`docs/glossary.md` has the terms. `INSTEAD` lists words that are not the field's, with what to
write; `ALLOWED` lists technical uses of the same words.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

INSTEAD = {
    r"(?<!there )\bis no (?!longer|more|less|better|worse|need|way|different)\w+": "is not a ..",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\b(fore)?told\b": "given, reported, estimated",
    r"\bforetells?\b": "estimate",
    r"\bdear(er|est)?\b": "expensive, most expensive",
    r"\bin kin\b": "",
    r"\bstand-ins?\b": "student blocks, replacements",
    r"\bworked out\b": "computed",
    r"\bthe whole way\b": "end to end, all steps",
    r"\b(first|last) words?\b": "name the thing",
    r"\bgo(es)? by\b": "uses, follows",
    r"\bof its own accord\b": "by itself",
    r"\bthe machine's hand\b": "",
    r"\bso many times less\b": "factor by which",
    r"\bdistils?\b": "distill",
    r"\bdistiling\b": "distilling",
    r"\bdistillings?\b(?= of)": "distillation",
    r"\blayers?\b": "block (a transformer unit), floor (of the architecture)",
    r"\bchunks?\b": "span, part",
    r"\bmasks?\b": "plan, selection",
    r"\bprune[- ]strings?\b": "plan",
    r"\banswers? as its teacher\b": "predict what the teacher predicts",
    r"\bwithout end\b": "without limit",
    r"\bwhat goes\b(?! (in|into|out|wrong))": "name the thing",
    r"\bby heart\b": "",
    r"\bhearsay\b": "",
    r"\bdoes otherwise\b": "differs",
    r"\botherwise than\b": "other than",
    r"\btwins?\b": "copies, duplicated blocks",
    r"\ba number that is no\b": "not a number",
    r"\bsweeps? (it |them )?up\b": "removes",
    r"\bthe middle one of\b": "the median of",
    r"\bon paper\b": "estimated",
}

# Removed from a text before it is searched.
ALLOWED = [
    r"\b(attention|text|padding|key|boolean|causal|token|prompt|loss|sample|pixel)[ _-]masks?\b",
    r"\bmasked RepKD\b",
    r"\bmasks? of (the )?(text|tokens|attention|padding|massive activations)\b",
    r"\b(linear|Linear|norm|normali[sz]ation|embedding|convolution|encoder|text encoder) layers?\b",
    r"\blayer (norm|normali[sz]ation|skip|dropping|pruning)\b",
    r"\b(lora|LoRA) layers?\b",
    r"\bchunks? of (a|the) fused\b",
    r"\bfused chunks?\b",
    r"`[^`\n]*`",  # code in prose: names of other libraries
    r"https?://\S+",
]

# Places where a word of INSTEAD is a technical term: chunks of a fused linear, masks of tokens.
TECHNICAL = {
    "chunk": {"workbench/families", "workbench/students", "workbench/training", "workbench/demo"},
    "mask": {"workbench/training", "workbench/demo"},
    "layer": {"docs/glossary.md"},  # what others call a block
}

# Parts of names (split at _ and capitals) that are not nouns of the field.
BANNED_NAMES = {
    "told",
    "foretold",
    "foretell",
    "mend",
    "mended",
    "dear",
    "dearest",
    "kin",
    "standin",
    "standins",
    "wanted",
    "distil",
    "student_blocks",
}

Text = tuple[int, str]  # line number, text


def python_texts(source: str) -> Iterator[Text]:
    """Docstrings, string literals (parts of f-strings too) and comments, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for offset, line in enumerate(node.value.split("\n")):
                yield node.lineno + offset, line
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def python_names(source: str) -> Iterator[Text]:
    """Names that the source itself introduces: functions, classes, arguments, variables."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def notebook_texts(source: str) -> Iterator[Text]:
    for number, cell in enumerate(json.loads(source)["cells"], 1):
        for line in "".join(cell["source"]).split("\n"):
            yield number, line


def texts(path: Path) -> Iterator[Text]:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_texts(source)
    elif path.suffix == ".ipynb":
        yield from notebook_texts(source)
    else:
        yield from enumerate(source.split("\n"), 1)


def is_technical(word: str, path: Path) -> bool:
    """Whether a banned word has another, technical meaning in that file."""
    where = TECHNICAL.get(word.lower().removesuffix("s"), set())
    return any(path.is_relative_to(ROOT / place) for place in where)


def complaints(path: Path) -> list[str]:
    """What to change in one file, a line each: place, the text, what to write instead."""
    result = []
    for number, line in texts(path):
        text = line
        for pattern in ALLOWED:
            text = re.sub(pattern, " ", text)
        for pattern, instead in INSTEAD.items():
            match = re.search(pattern, text, re.IGNORECASE)
            if match and not is_technical(match[0], path):
                place = f"{path.relative_to(ROOT)}:{number}"
                result.append(f"{place}: '{match[0]}' -> {instead} | {line.strip()}")
    if path.suffix == ".py":
        for number, name in python_names(path.read_text(encoding="utf-8")):
            parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
            if BANNED_NAMES & set(parts):
                result.append(f"{path.relative_to(ROOT)}:{number}: the name {name}")
    return result


def places() -> dict[str, list[Path]]:
    """What is searched: the documents, the notebooks, and each room of the package."""
    found = {
        "README": [ROOT / "README.md"],
        "CONTRIBUTING": [ROOT / "CONTRIBUTING.md"],
        "CHANGELOG": [ROOT / "CHANGELOG.md"],
        "docs": sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.py")]),
        "notebooks": sorted((ROOT / "notebooks").glob("*.ipynb")),
        "benchmarks": sorted((ROOT / "benchmarks").glob("*.py")),
        "workbench": sorted((ROOT / "workbench").glob("*.py")),
    }
    for room in sorted((ROOT / "workbench").iterdir()):
        if room.is_dir() and (room / "__init__.py").exists():
            files = [p for suffix in ("py", "yaml", "jinja") for p in room.rglob(f"*.{suffix}")]
            found[f"workbench/{room.name}"] = sorted(files)
    return found


PLACES = places()


@pytest.mark.parametrize("place", PLACES)
def test_plain_words(place: str):
    result = [line for path in PLACES[place] for line in complaints(path)]
    assert result == [], "\n" + "\n".join(result)


def test_words_are_found_in_every_kind_of_text(tmp_path: Path):
    source = 'def told():\n    """Mend it."""\n    raise ValueError(f"{x} is no plan")  # chunk\n'
    assert [line for line, text in python_texts(source) if re.search("Mend|no plan|chunk", text)]
    assert list(python_names(source)) == [(1, "told")]
    cells = json.dumps({"cells": [{"source": ["one\n", "the whole way"]}]})
    assert list(notebook_texts(cells)) == [(1, "one"), (1, "the whole way")]


if __name__ == "__main__":  # python -m tests.test_words [PLACE..]: everything that is found
    import sys

    for place in sys.argv[1:] or PLACES:
        for path in PLACES[place.rstrip("/")]:
            print(*complaints(path), sep="\n", end="\n" if complaints(path) else "")
