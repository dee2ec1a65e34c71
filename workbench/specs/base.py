"""What all verb specs share: how a field is declared, parsed, located and described."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ..records import BadInput, read_text, read_yaml, yamlfile
from ..records.record import shown

# How a field's text becomes a path: a file or folder that must be there, a file if there is one of
# that name (else the name of something bundled or in the workspace), a model, or a place to write.
Place = Literal["", "file", "file-or-name", "file-or-folder", "model", "output"]


@dataclass(frozen=True)
class Extras:
    """What a field says beyond pydantic: see `option`."""

    label: str
    unit: str
    choices: Callable[[], list[str]]
    flag: str
    short: str
    metavar: str
    positional: bool
    place: Place
    usual: str
    advanced: bool


@dataclass(frozen=True)
class Facts:
    """One field of a spec, as front ends need it.

    `label` is its name in forms; `usual` says in words what an unset field means ("the teacher's own"); `choices` are the values
    to offer, empty where any will do; `parsed` values have a written form of their own ("0,1,23");
    `advanced` fields are folded away in forms.
    """

    name: str
    label: str
    about: str
    annotation: Any
    required: bool
    default: Any
    unit: str
    listed: Callable[[], list[str]]
    flag: str
    short: str
    other_flags: tuple[str, ...]
    parsed: bool
    metavar: str
    positional: bool
    place: Place
    usual: str
    advanced: bool
    minimum: float | None
    maximum: float | None

    @property
    def choices(self) -> list[str]:
        """The values to offer now: a registry may have got more rows."""
        return self.listed()


def path_fault(path: str) -> str:
    """Why no file system takes a path; empty where one might."""
    if not path:
        return "it is empty"
    if "\0" in path:
        return "it has a NUL character"
    if any(len(part.encode("utf-8", "replace")) > 255 for part in path.split("/")):
        return "a name of more than 255 bytes"
    return ""


def option(
    default: Any = ...,
    about: str = "",
    *,
    label: str = "",
    unit: str = "",
    choices: Callable[[], list[str]] = list,
    flag: str = "",
    short: str = "",
    metavar: str = "",
    positional: bool = False,
    place: Place = "",
    usual: str = "",
    advanced: bool = False,
    **limits: Any,
) -> Any:
    """Declare a field of a verb spec.

    about: one sentence for --help, the form and the reference page. label: the field's name in
    forms, a few words without the unit; by default from the name. unit: of a number. choices: a
    function that lists the values to offer (a registry's `names`). flag: where it is not the
    field's name with dashes; short: a second, one-letter flag. place: how text becomes a path (see
    Place). usual: what None means, in words. limits: ge, gt, le, lt, min_length as in pydantic.
    """
    extras = Extras(label, unit, choices, flag, short, metavar, positional, place, usual, advanced)
    extra: Any = {"extras": extras}  # pydantic expects JSON here, and passes on anything
    return Field(default, description=about, json_schema_extra=extra, **limits)


class VerbSpec(BaseModel):
    """A verb's input. Frozen; an unknown key or a wrong type is a BadInput of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    verb: ClassVar[str]
    # Former or second names of fields: accepted in files, calls and as flags.
    also: ClassVar[Mapping[str, str]] = {}
    # Those of them that are flags, too.
    also_flags: ClassVar[tuple[str, ...]] = ()
    # Keys of specs written by older versions that no longer mean anything.
    gone: ClassVar[tuple[str, ...]] = ()
    # Whether several runs may write one output at once, each a part of it.
    shares_output: ClassVar[bool] = False

    plugins: list[str] = option(
        [],
        "Python file that registers your own rules, scorers and so on; may be given several times.",
        label="Plugin files",
        flag="--plugin",
        metavar="FILE.py",
        place="file",
        advanced=True,
    )

    @classmethod
    def parse(cls, data: Mapping[str, Any], source: str = "") -> Self:
        """Validate plain data. `source` names the file or caller in the error. Raises BadInput."""
        source = source or cls.verb
        values = {}
        for key, value in data.items():
            name = cls.also.get(key, key)
            if name in values:
                raise BadInput(f"{source}: both {key} and {name}", "one of them", "remove one")
            if name not in cls.gone:
                values[name] = value
        for name in values:
            if name not in cls.model_fields:
                raise unknown_key(str(name), source, cls)
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            raise refusal(error, source) from None
        spec.check_paths(source)
        return spec

    def check_paths(self, source: str) -> None:
        """Raises BadInput for a path that no file system takes."""
        for fact in facts(type(self)):
            value = getattr(self, fact.name)
            if fact.place and isinstance(value, str) and path_fault(value):
                raise BadInput(
                    f"{source}: {fact.name} {shown(value)}: {path_fault(value)}",
                    "a path",
                    f"change {fact.name}",
                )

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a YAML or JSON file; its relative paths are relative to the file."""
        path = Path(path).expanduser().absolute()
        data = read_yaml(
            read_text(path, f"{cls.verb} spec", yamlfile.MOST_BYTES), str(path), f"{cls.verb} spec"
        )
        if not isinstance(data, dict):
            raise BadInput(f"{path} is {type(data).__name__}", "keys and values", "fix the file")
        return cls.parse(data, str(path)).located(path.parent)

    def to_data(self) -> dict[str, Any]:
        """Plain data of the fields that differ from their defaults; `parse` reads it back."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def located(self, folder: Path) -> Self:
        """The same spec with relative paths made absolute against `folder`."""
        changes: dict[str, Any] = {}
        for fact in facts(type(self)):
            value = getattr(self, fact.name)
            if fact.place and isinstance(value, str):
                changes[fact.name] = absolute(value, fact.place, folder)
            elif fact.place and isinstance(value, list):
                changes[fact.name] = [absolute(item, fact.place, folder) for item in value]
        return self.model_copy(update=changes)


BUNDLED_MODELS = ("demo", "demo-12")  # a folder of that name is written ./demo


def absolute(text: str, place: Place, folder: Path) -> str:
    """A path as absolute text; the name of something bundled or in the workspace stays as it is."""
    if place == "model" and text in BUNDLED_MODELS:
        return text
    path = Path(text).expanduser()
    full = folder / path  # an absolute path stays as it is
    if place in ("file", "output"):
        return str(full)
    if place == "model":
        if full.exists() or text.startswith((".", "~", "/")):
            return str(full)
        name, equals, model = text.partition("=")
        if equals:  # NAME=MODEL
            return f"{name}={absolute(model, place, folder)}"
        return text
    exists = full.is_file() or (place == "file-or-folder" and full.is_dir())
    if exists or path.suffix or "/" in text:
        return str(full)
    return text


def facts(spec: type[VerbSpec]) -> list[Facts]:
    """The fields of a spec in order, described for front ends."""
    own = [name for name in spec.model_fields if name != "plugins"]
    return [facts_of(name, spec.model_fields[name], spec) for name in [*own, "plugins"]]


def facts_of(name: str, field: FieldInfo, spec: type[VerbSpec]) -> Facts:
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or "extras" not in extra:
        raise TypeError(f"declare {spec.__name__}.{name} with option()")
    extras: Extras = extra["extras"]  # type: ignore[assignment]
    limits: dict[str, Any] = {}
    for item in field.metadata:
        for limit in ("ge", "gt", "le", "lt"):
            if getattr(item, limit, None) is not None:
                limits[limit] = getattr(item, limit)
    return Facts(
        name=name,
        label=extras.label or name.replace("_", " ").capitalize(),
        about=field.description or "",
        annotation=field.annotation,
        required=field.is_required(),
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        unit=extras.unit,
        listed=extras.choices,
        flag=extras.flag or "--" + name.replace("_", "-"),
        other_flags=tuple("--" + old for old in spec.also_flags if spec.also[old] == name),
        short=extras.short,
        parsed="BeforeValidator" in repr(field.annotation) + repr(field.metadata),
        metavar=extras.metavar,
        positional=extras.positional,
        place=extras.place,
        usual=extras.usual,
        advanced=extras.advanced,
        minimum=limits.get("ge", limits.get("gt")),
        maximum=limits.get("le", limits.get("lt")),
    )


def refusal(error: ValidationError, source: str) -> BadInput:
    """The first fault that pydantic found, as one line that names the field."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "missing":
        return BadInput(f"{source} without {field}", f"a value for {field}", "add it")
    expected = expected_of(first["type"], first["msg"], first.get("ctx", {}))
    return BadInput(f"{source}: {field} {shown(first['input'])}", expected, f"change {field}")


KINDS_OF_VALUE = {"int": "a whole number", "float": "a number", "bool": "yes or no"}
LIMITS = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
}


def expected_of(kind: str, message: str, limits: Mapping[str, Any]) -> str:
    """What a field accepts, from the error that pydantic raised."""
    if kind in LIMITS:
        return LIMITS[kind].format_map(limits)
    value, _, _ = kind.partition("_")
    if value in KINDS_OF_VALUE:
        return KINDS_OF_VALUE[value]
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def unknown_key(name: str, source: str, spec: type[VerbSpec]) -> BadInput:
    """The error for a key that the spec does not have, with the nearest one that it has."""
    near = difflib.get_close_matches(name, list(spec.model_fields), n=1)
    do = "remove it"
    if near:
        do = f"did you mean {near[0]}?"
    return BadInput(f"{source}: unknown key {name}", ", ".join(spec.model_fields), do)
