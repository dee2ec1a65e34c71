"""How one checkpoint's tensors follow from the names of another."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from ...records import BadInput

NUMBERED = re.compile(r"^(\w+)\.(\d+)\.")
NUMBER = "{n}"


@dataclass(frozen=True)
class Module:
    """A module of the original checkpoint, or one of its tensors by its whole name.

    name: its path; {n} stands for the number of the block, in `ours` too. ours: diffusers' modules
    whose rows it holds, one after the other. swapped: its first and second half of rows change
    places on the way (shift and scale of the last AdaLN).
    """

    name: str
    ours: tuple[str, ...]
    swapped: bool = False


@dataclass(frozen=True)
class OriginalTensor:
    """A tensor of the original checkpoint: the rows of `sources` (diffusers' names), in order."""

    name: str
    sources: tuple[str, ...]
    swapped: bool = False


@dataclass(frozen=True)
class OriginalNames:
    """A family's original names. others_stay: tensors that no module names keep their names."""

    modules: tuple[Module, ...]
    others_stay: bool = False

    @cached_property
    def by_source(self) -> dict[str, tuple[Module, int]]:
        """diffusers' path -> its module, and its place among the module's sources."""
        found = {}
        for module in self.modules:
            for place, source in enumerate(module.ours):
                found[source] = (module, place)
        return found

    def tensors(self, names: Collection[str]) -> Iterator[OriginalTensor]:
        """The original checkpoint's tensors, of all tensors of a diffusers checkpoint.

        Raises BadInput for a tensor that has no original name, and where a joined one lacks a part.
        """
        known = set(names)
        for name in names:
            path, end, number = self.entry(name)
            if path is None:
                if not self.others_stay:
                    raise unknown(name)
                yield OriginalTensor(name, (name,))
                continue
            module, place = self.by_source[path]
            if place > 0:
                continue
            sources = tuple(filled(source, number) + end for source in module.ours)
            for source in sources:
                if source not in known:
                    raise unknown(name, f"without {source}")
            yield OriginalTensor(filled(module.name, number) + end, sources, module.swapped)

    def entry(self, name: str) -> tuple[str | None, str, str]:
        """The path that a module is listed under, what follows it in the name, and the number of
        the block; (None, "", "") where none is.
        """
        number = ""
        match = NUMBERED.match(name)
        generic = name
        if match:
            number = match[2]
            generic = f"{match[1]}.{NUMBER}.{name[match.end() :]}"
        for path in (generic, name):
            if path in self.by_source:
                return path, "", number
            module, _, parameter = path.rpartition(".")
            if module in self.by_source:
                return module, f".{parameter}", number
        return None, "", ""


def filled(path: str, number: str) -> str:
    return path.replace(NUMBER, number)


def unknown(name: str, more: str = "") -> BadInput:
    return BadInput(
        " ".join([f"tensor {name}", more]).strip() + " has no name outside diffusers",
        "the tensors of the family's stock class",
        "release it for diffusers, or build it with --fat",
    )
