"""A registry: names and rows, imported when they are first used, open to rows from outside."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Any, Generic, TypeVar

from ..records import BadInput
from .kinds import KINDS

Row = TypeVar("Row")


@dataclass(frozen=True)
class Lazy:
    """A row that is imported when it is first used.

    target: "module:attribute". install: the command that installs what the module imports, named
    in the error where it is missing. about: one sentence for lists that must not import it.
    """

    target: str
    install: str = ""
    about: str = ""


class Registry(Generic[Row]):
    """The rows of one kind: built-in ones, then entry points, then registered ones.

    `elsewhere`: name -> the command that installs a package which adds a row of that name.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.elsewhere: dict[str, str] = {}
        self._registered: dict[str, Any] = {}
        self._imported: dict[Lazy, Any] = {}

    def names(self) -> list[str]:
        """The names of all rows, without importing lazy ones."""
        return list(self._rows())

    def __contains__(self, name: object) -> bool:
        return name in self._rows()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._rows())

    def __getitem__(self, name: str) -> Row:
        """The row of that name.

        Raises BadInput for an unknown name, for a row of the wrong type, and where a package that
        the row needs is not installed.
        """
        rows = self._rows()
        if name not in rows:
            raise self._unknown(name)
        return self._resolved(name, rows[name])

    def items(self) -> list[tuple[str, Row]]:
        """All rows that can be imported; one that cannot is named on stderr and left out."""
        found = []
        for name, row in self._rows().items():
            try:
                found.append((name, self._resolved(name, row)))
            except BadInput as error:
                print(f"{self.kind} {name} is left out: {error}", file=sys.stderr)
        return found

    def values(self) -> list[Row]:
        return [row for _, row in self.items()]

    def about(self, name: str) -> str:
        """What a row says of itself; a lazy row is not imported for it."""
        row = self._rows().get(name)
        return str(getattr(row, "about", "") or "")

    def add(self, name: str, row: Row | Lazy) -> None:
        """Add a row; one of the same name is replaced in this process."""
        self._registered[name] = row

    def remove(self, name: str) -> None:
        """Take back a row that was added; nothing happens where there is none."""
        self._registered.pop(name, None)

    # --- inside ---------------------------------------------------------------------------------

    def _rows(self) -> Mapping[str, Row | Lazy]:
        builtin = imported(KINDS[self.kind].home)
        return {**builtin, **entry_points(KINDS[self.kind].plural), **self._registered}

    def _resolved(self, name: str, row: Row | Lazy) -> Row:
        """The row, imported where it is lazy, of the right type."""
        if not isinstance(row, Lazy):
            return self._checked(name, row)
        if row not in self._imported:
            self._imported[row] = self._checked(name, self._load(name, row))
        found: Row = self._imported[row]
        return found

    def _load(self, name: str, row: Lazy) -> Any:
        try:
            return imported(row.target)
        except ModuleNotFoundError as error:
            found = f"{self.kind} {name} without the package {error.name}"
            do = row.install or f"pip install {error.name}"
            raise BadInput(found, "that package", do) from error
        except AttributeError as error:
            found = f"{self.kind} {name}: {row.target} does not exist"
            raise BadInput(found, "module:attribute", "fix the entry point") from error

    def _checked(self, name: str, row: Any) -> Any:
        if not isinstance(row, row_type(self.kind)):
            found = f"{self.kind} {name} is {type(row).__name__}"
            expected = KINDS[self.kind].row_type.replace(":", ".")
            raise BadInput(found, expected, "register a row of that type")
        return row

    def _unknown(self, name: str) -> BadInput:
        found = f"{self.kind.replace('_', ' ')} {name!r}"
        if name in self.elsewhere:
            return BadInput(found, "the package that adds it", self.elsewhere[name])
        do = "choose one, or load the file that adds it with --plugin FILE.py"
        return BadInput(found, "one of " + ", ".join(self.names()), do)


def imported(target: str) -> Any:
    """The object at "module:attribute"."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


@cache
def row_type(kind: str) -> type:
    """The class of a kind's rows."""
    found: type = imported(KINDS[kind].row_type)
    return found


@cache
def entry_points(plural: str) -> dict[str, Lazy]:
    """The rows that installed packages add: entry points of the group workbench.<plural>."""
    return {
        point.name: Lazy(point.value)
        for point in metadata.entry_points(group=f"workbench.{plural}")
    }


_registries: dict[str, Registry[Any]] = {kind: Registry(kind) for kind in KINDS}


def registry(kind: str) -> Registry[Any]:
    """The registry of a kind. Raises BadInput for an unknown kind."""
    if kind not in _registries:
        raise BadInput(f"kind {kind!r}", "one of " + ", ".join(KINDS), "choose one")
    return _registries[kind]


def register(kind: str, name: str, row: Any) -> None:
    """Add a row to the table of `kind`; a row of the same name is replaced.

    A row registered in a notebook exists in that process only. For background jobs put the call
    into a file and load it with --plugin FILE.py (in Python: `workbench.load_plugin(FILE)`).

    Raises BadInput for an unknown kind or an empty name; a row of the wrong type is refused when
    it is first used.
    """
    table = registry(kind)
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"{kind} name {name!r}", "a name", "give it one")
    table.add(name, row)


def unregister(kind: str, name: str) -> None:
    """Take back a row that `register` added; nothing happens where there is none."""
    registry(kind).remove(name)
