"""What every saved record is: a frozen pydantic model, named by its content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from . import jsonfile, yamlfile
from .errors import BadInput
from .files import read_text, write_atomic


class Record(BaseModel):
    """An immutable record. `digest` names its content; `what` is its name in error messages."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: ClassVar[str] = "record"

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def parse(cls, data: Any, source: str) -> Self:
        """Validate plain data; `source` names the file in the error. Raises BadInput."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise invalid(error, source, cls.what, cls) from None

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a JSON file, or YAML where the name ends in .yaml or .yml. Raises BadInput."""
        if str(path).endswith((".yaml", ".yml")):
            text = read_text(Path(path), cls.what, yamlfile.MOST_BYTES)
            return cls.parse(read_yaml(text, str(path), cls.what), str(path))
        return cls.parse(jsonfile.read(Path(path), cls.what), str(path))

    def save(self, path: Path | str) -> Path:
        """Write JSON, atomically."""
        return write_atomic(Path(path), json.dumps(self.model_dump(mode="json"), indent=1) + "\n")


def invalid(error: ValidationError, source: str, what: str, model: type[BaseModel]) -> BadInput:
    """The first fault that pydantic found, as BadInput: which field, what it holds, what fits."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(model_at(model, first["loc"]).model_fields)
        return BadInput(
            f"{source}: unknown key {field} in the {what}", known, "rename or remove it"
        )
    if first["type"] == "missing":
        return BadInput(f"{source}: {what} without {field}", f"a value for {field}", "add it")
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if len(reason) > 200:
        reason = reason[:199] + "…"
    if not field:
        return BadInput(f"{source}: invalid {what}", reason, "fix it")
    return BadInput(
        f"{source}: invalid {what}, field {field} is {shown(first['input'])}",
        reason,
        "fix that field",
    )


def model_at(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that holds a key: the last one on the way to its place."""
    for part in place[:-1]:
        if part in model.model_fields:
            model = nested_model(model.model_fields[str(part)].annotation) or model
    return model


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation like list[Model] or Model | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        model = nested_model(inner)
        if model is not None:
            return model
    return None


def shown(value: Any) -> str:
    """A value in an error message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def read_json(text: str, source: str, what: str) -> Any:
    """Parse JSON. Raises BadInput with the line of the fault."""
    return jsonfile.parse_as(text, source, what)


def read_yaml(text: str, source: str, what: str) -> Any:
    """Parse YAML into plain data. Raises BadInput with the place of the fault."""
    try:
        return yamlfile.parse(text)
    except yamlfile.YAMLError as error:
        raise BadInput(
            f"{source} is not YAML ({yaml_fault(error)})", f"a {what} in YAML", "fix that line"
        ) from None


def yaml_fault(error: Exception) -> str:
    """Where the fault is and what it is, from the parser's many lines."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split())[:200]
