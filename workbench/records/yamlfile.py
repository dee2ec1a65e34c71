"""YAML for files that people edit: plain data in, one list item a line out, comments kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from .yaml_comments import carry_comments

__all__ = ["YAMLError", "dump", "parse", "update"]

MOST_BYTES = 256 * 1024  # the parser takes ten seconds a megabyte; a plan has ten kilobytes
# Aliases can make millions of values of a few lines.
MOST_VALUES = 100_000
DEEPEST_NESTING = 50


def parse(text: str) -> Any:
    """Plain data, as JSON could hold it: text keys, no dates, no bytes, nothing inside itself.

    Raises YAMLError with the reason.
    """
    if len(text) > MOST_BYTES:
        raise YAMLError(f"it has more than {MOST_BYTES} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor used twice
            data = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        raise
    except RecursionError:
        raise YAMLError("it is nested too deeply") from None
    except Exception as error:
        # ruamel passes on what it meets: an impossible date, a number too long, a broken tag
        raise YAMLError(f"{type(error).__name__}: {error}") from None
    for count, value in enumerate(values_of(data, 0)):
        if count > MOST_VALUES:
            raise YAMLError(f"it has more than {MOST_VALUES} values")
        check_plain(value)
    return data


def values_of(value: Any, depth: int) -> Iterator[Any]:
    """The value and all values and keys inside it, in order."""
    if depth > DEEPEST_NESTING:
        raise YAMLError("it is nested too deeply, or contains itself")
    yield value
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise YAMLError(f"the key {str(key)[:40]!r} is not text")
            yield key
            yield from values_of(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from values_of(item, depth + 1)


def check_plain(value: Any) -> None:
    """Refuse a value that JSON or UTF-8 could not hold."""
    if value is None or isinstance(value, bool | dict | list):
        return
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise YAMLError("it has half a character (a lone surrogate)")
    elif isinstance(value, float):
        if not -(2**63) <= value < 2**63:  # false for nan, too
            raise YAMLError(f"the number {value} cannot be kept")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise YAMLError("a number of more than 64 bits cannot be kept")
    else:
        kind = type(value).__name__
        raise YAMLError(f"a {kind} ({str(value)[:40]}) is neither text nor a number; quote it")


def dump(data: dict[str, Any]) -> str:
    """Block style outside; one line for each list item and for flat mappings below the top."""
    writer = YAML()
    writer.width = 4096
    writer.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    writer.dump(styled(data, 0), out)
    return out.getvalue()


def styled(value: Any, depth: int) -> Any:
    """The value as ruamel's nodes, with flow style where it belongs on one line."""
    if isinstance(value, dict):
        node = CommentedMap((key, styled(item, depth + 1)) for key, item in value.items())
        flat = not any(isinstance(item, dict | list) and item for item in value.values())
        if depth > 1 or (depth == 1 and flat):
            node.fa.set_flow_style()
        return node
    if isinstance(value, list):
        items = CommentedSeq(on_one_line(item) for item in value)
        if not any(isinstance(item, dict) for item in value):
            items.fa.set_flow_style()
        return items
    return value


def on_one_line(value: Any) -> Any:
    """The value as ruamel's nodes, all in flow style."""
    node: Any
    if isinstance(value, dict):
        node = CommentedMap((key, on_one_line(item)) for key, item in value.items())
    elif isinstance(value, list):
        node = CommentedSeq(on_one_line(item) for item in value)
    else:
        return value
    node.fa.set_flow_style()
    return node


def update(path: Path, data: dict[str, Any]) -> str:
    """The text to write at `path`: as it is where it says the same, else new with its comments."""
    new = dump(data)
    try:
        old = path.read_text(encoding="utf-8")
        if parse(old) == parse(new):
            return old
    except (OSError, UnicodeDecodeError, YAMLError):
        return new
    return carry_comments(old, new)
