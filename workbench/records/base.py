"""What every record is: frozen, named by its content, read and written whole. And the one error a
person can mend.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import yamlfile


class BadInput(ValueError):
    """Input a person can mend. The message is one line: what was found, what was expected, what to
    do.
    """

    def __init__(self, found: str, expected: str, do: str):
        super().__init__(
            "; ".join((_line(found, 500), f"expected {_line(expected, 1500)}", _line(do, 500)))
        )


def _line(text: str, longest: int) -> str:
    """Fit for one line of a terminal, whatever a broken file put into it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def write_atomic(path: Path, text: str) -> Path:
    """Write text so that a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
    return path


def read_text(path: Path, what: str) -> str:
    """Read a text file, or say in one line why it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(
            f"{what} {path} does not exist", "a readable file", "check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{what} {path} is not UTF-8 (byte {error.start})", "UTF-8 text", "convert the file"
        ) from None
    except OSError as error:
        raise BadInput(
            f"{what} {path} cannot be read ({error.strerror})", "a readable file", "check the path"
        ) from None


def explain(error: ValidationError) -> str:
    """The first fault pydantic found, as `field: message`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{where}: {first['msg']}"


class Record(BaseModel):
    """An immutable record. `digest` names its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: ClassVar[str] = "record"

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def parse(cls, data: Any, source: str) -> Self:
        """Validate plain data; `source` names the file in the error."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise BadInput(
                f"{source} is no {cls.what} ({explain(error)})", f"a {cls.what}", "mend that field"
            ) from None

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read JSON, or YAML where the name ends so."""
        text = read_text(Path(path), cls.what)
        if str(path).endswith((".yaml", ".yml")):
            data = read_yaml(text, str(path), cls.what)
        else:
            try:
                data = json.loads(text)
            except (ValueError, RecursionError) as error:
                where = (
                    f"line {error.lineno}: {error.msg}"
                    if isinstance(error, json.JSONDecodeError)
                    else str(error)
                )
                raise BadInput(
                    f"{path} is not JSON ({where})",
                    f"a {cls.what}",
                    "mend the file or write it again",
                ) from None
        return cls.parse(data, str(path))

    def save(self, path: Path | str) -> Path:
        return write_atomic(Path(path), json.dumps(self.model_dump(mode="json"), indent=1) + "\n")


def read_yaml(text: str, source: str, what: str) -> Any:
    """Parse YAML into plain data, or say in one line why not."""
    try:
        return yamlfile.parse(text)
    except yamlfile.YAMLError as error:
        first = " ".join(str(error).split())[:200]
        raise BadInput(
            f"{source} is not YAML ({first})", f"a {what} in YAML", "mend that line"
        ) from None


class Progress(Record):
    """What a long-running generator yields. The last one carries the result; `metrics` become a row
    of metrics.jsonl.
    """

    what: ClassVar[str] = "progress"
    step: int
    total: int
    message: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict)
    result: Any = None
