"""JSON that others wrote: one parser for every file, so that odd ones are refused alike.

Refused are files that are too long, nested too deeply, or hold numbers that nobody could use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import BadInput
from .files import read_text

MOST_BYTES = 64 * 2**20  # a map of 60 blocks, 15 edits and 50 timesteps has 6 MB
LONGEST_NUMBER = 20  # digits of 64 bits, with the sign


class JSONError(ValueError):
    """Text that is not JSON, or not JSON that one can work with; the message is the reason."""


def parse(text: str | bytes) -> Any:
    """Plain data. Raises JSONError with the reason."""
    try:
        return json.loads(text, parse_int=to_int)
    except json.JSONDecodeError as error:
        raise JSONError(f"line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise JSONError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise JSONError(f"byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise JSONError(str(error)) from None


def to_int(digits: str) -> int:
    """A whole number of 64 bits with a sign, as the database and safetensors hold it."""
    if len(digits) > LONGEST_NUMBER:
        raise JSONError(f"a number of {len(digits)} digits")
    number = int(digits)
    if not -(2**63) <= number < 2**63:
        raise JSONError(f"the number {number} has more than 64 bits")
    return number


def parse_as(text: str | bytes, source: str, what: str) -> Any:
    """Plain data of the file `source`. Raises BadInput with the line of the fault."""
    try:
        return parse(text)
    except JSONError as error:
        raise BadInput(
            f"{source} is not JSON ({error})", f"a {what} in JSON", "fix the file or write it again"
        ) from None


def read(path: Path, what: str) -> Any:
    """Plain data of a file. Raises BadInput where it is missing, unreadable or not JSON."""
    return parse_as(read_text(path, what, MOST_BYTES), str(path), what)


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The object that a file holds. Raises BadInput also where it holds something else."""
    data = read(path, what)
    if not isinstance(data, dict):
        raise BadInput(
            f"{path} holds a {type(data).__name__}", f"a {what}: a JSON object", "fix the file"
        )
    return data
