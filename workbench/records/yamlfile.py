"""YAML for files that people edit: one list item a line, and comments survive when a program writes
the file again.

ruamel's round trip loses comments between flow-style items (0.19), so comments are carried over by
line: a comment stays with the line it stood on or above; where that line is gone, it moves to the
next line that is still there.
"""

from __future__ import annotations

import warnings
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

__all__ = ["YAMLError", "dump", "parse", "update"]


LIMITS = 100_000, 50  # values, and levels of nesting: aliases can make millions of a few lines


def parse(text: str) -> Any:
    """Plain data, as JSON could hold it: text keys, no dates, no bytes, nothing inside itself.
    Raises YAMLError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor used twice
            data = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        raise
    except RecursionError:
        raise YAMLError("it is nested too deeply") from None
    except Exception as error:  # ruamel lets through what it meets: an impossible date, a number too long, a broken tag
        raise YAMLError(f"{type(error).__name__}: {error}") from None
    _check_plain(data, [0], 0)
    return data


def _check_plain(value: Any, seen: list[int], depth: int) -> None:
    """Refuse what could not be written again. `seen` counts the values so far."""
    seen[0] += 1
    if seen[0] > LIMITS[0] or depth > LIMITS[1]:
        raise YAMLError("it has too many values, is nested too deeply, or contains itself")
    if type(value) is dict:
        for key, item in value.items():
            if not isinstance(key, str):
                raise YAMLError(f"the key {str(key)[:40]!r} is no text")
            _check_plain(key, seen, depth + 1)
            _check_plain(item, seen, depth + 1)
    elif type(value) is list:
        for item in value:
            _check_plain(item, seen, depth + 1)
    elif type(value) is str:
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise YAMLError("it has half a character (a lone surrogate)")
    elif type(value) in (int, float):
        if not -(2**63) <= value < 2**63:  # not a number, too
            raise YAMLError(
                f"the number "
                f"{value if isinstance(value, float) else 'of more than 64 bits'} "
                f"cannot be kept"
            )
    elif value is not None and type(value) is not bool:
        raise YAMLError(
            f"a {type(value).__name__} ({str(value)[:40]}) is neither text nor a "
            f"number; put it in quotes"
        )


def dump(data: dict[str, Any]) -> str:
    """Block style outside, one line for every list item and for mappings of plain values two levels
    down.
    """
    writer, out = YAML(), StringIO()
    writer.width = 4096
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.dump(_styled(data, 0), out)
    return out.getvalue()


def _styled(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        node: Any = CommentedMap({key: _styled(item, depth + 1) for key, item in value.items()})
        if depth and not any(
            isinstance(item, dict | list) and item for item in value.values() if depth == 1
        ):
            node.fa.set_flow_style()
        return node
    if isinstance(value, list):
        node = CommentedSeq([_flow(item) for item in value])
        if not any(isinstance(item, dict) for item in value):
            node.fa.set_flow_style()
        return node
    return value


def _flow(value: Any) -> Any:
    if isinstance(value, dict):
        node: Any = CommentedMap({key: _flow(item) for key, item in value.items()})
    elif isinstance(value, list):
        node = CommentedSeq([_flow(item) for item in value])
    else:
        return value
    node.fa.set_flow_style()
    return node


def update(path: Path, data: dict[str, Any]) -> str:
    """The text to write at `path`: unchanged where the file says the same, else new lines with the
    old comments.
    """
    try:
        old = path.read_text(encoding="utf-8")
        if parse(old) == parse(dump(data)):
            return old
    except (OSError, UnicodeDecodeError, YAMLError):
        return dump(data)
    return _carry(old.splitlines(), dump(data).splitlines())


def _carry(old: list[str], new: list[str]) -> str:
    """Put the comments of the old lines onto the new ones."""
    alive, placed = {_code(line) for line in new}, set()
    above: dict[str, list[str]] = {}
    beside: dict[str, str] = {}
    waiting: list[str] = []
    for line in old:
        code, comment = _code(line), line[len(_code(line)) :].strip()
        if not code.strip():
            waiting += [comment] if comment else []
        elif code in alive and code not in placed:
            placed.add(code)
            above[code], beside[code], waiting = waiting, comment, []
        elif comment:
            waiting.append(comment)
    out = []
    for line in new:
        indent = " " * (len(line) - len(line.lstrip()))
        out += [indent + comment for comment in above.pop(_code(line), [])]
        side = beside.pop(_code(line), "")
        out.append(f"{line}  {side}" if side else line)
    return "\n".join(out + waiting) + "\n"


def _code(line: str) -> str:
    """The line without its comment and trailing blanks; a # inside quotes or a word is no comment."""
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and (at == 0 or line[at - 1] in " \t"):
            return line[:at].rstrip()
    return line.rstrip()
