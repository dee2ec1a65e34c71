"""What a browser may open and change.

Whoever reaches the app names files by typing them into fields. Only files inside the workspace are
opened, and inside folders that the app was started with (`--folder`). The answer to any other path
is the same whether something is there or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plugins import registry
from ..records import BadInput
from ..specs import Facts, VerbSpec, facts
from ..specs.base import BUNDLED_MODELS, path_fault
from ..workspace.store import Store

# Names that a field takes beside paths, and the registries whose names do as well.
BUNDLED_DATA = ("scenes", "general")
NAMED = ("recipe", "rule")
HUB_ID = re.compile(r"(?:hub:)?[\w.\-]+/[\w.\-]+(?:@[\w.\-/]+)?")
# Fields whose files are code, or start some: never from a browser.
CODE = ("plugins", "scorer_files")
MODEL_KINDS = ("student", "teacher")
RECORD_KINDS = ("map", "plan")


@dataclass(frozen=True)
class Access:
    """folders: outside of the workspace, whose files a page may name. read_only: pages show
    everything and change nothing.
    """

    store: Store
    folders: tuple[Path, ...] = ()
    read_only: bool = False

    # --- changing ---------------------------------------------------------------------------------

    def check_change(self) -> None:
        """Raises BadInput where this app only shows."""
        if self.read_only:
            raise BadInput(
                "this app was started with --read-only",
                "an app that may change the workspace",
                "start one without it",
            )

    # --- opening ----------------------------------------------------------------------------------

    def opened(self, spec: type[VerbSpec], data: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a spec as a browser sent them, with their files as absolute paths.

        Raises BadInput for a file outside, and for files that are or start code.
        """
        values = {spec.also.get(name, name): value for name, value in data.items()}
        for name in CODE:
            if values.get(name):
                found = f"{name.replace('_', ' ')} from a browser"
                raise BadInput(found, "no code", "use the command line")
        for fact in facts(spec):
            value = values.get(fact.name)
            if not fact.place or not value:
                continue
            if isinstance(value, list):
                values[fact.name] = [self.named(fact, item) for item in value]
            else:
                values[fact.name] = self.named(fact, value)
        return values

    def named(self, fact: Facts, value: object) -> str:
        """One value of a field that names a file, a model, or something known by its name."""
        text = str(value).strip()
        if path_fault(text):
            raise self.outside(text, fact.label)
        if fact.place == "model":
            return self.model(text, fact.label)
        if fact.place in ("file-or-name", "file-or-folder"):
            known = self.known(fact, text)
            if known:
                return known
        return self.file(text, fact.label)

    def known(self, fact: Facts, name: str) -> str:
        """What a name stands for: itself, or the path of a record; empty for any other text."""
        if fact.place == "file-or-folder" and name.startswith("hub:") and HUB_ID.fullmatch(name):
            return name
        for kind in RECORD_KINDS:
            entry = self.store.find(kind, name)
            if entry is not None:
                return entry.path
        names = {*fact.choices, *BUNDLED_DATA}
        for kind in NAMED:
            names.update(registry(kind))
        is_taken = os.path.isfile(name)  # in the current folder: it would be read instead
        if fact.place == "file-or-folder":
            is_taken = os.path.lexists(name)
        return name if name in names and not is_taken else ""

    def model(self, text: str, what: str) -> str:
        """A model: bundled, of the workspace, a Hub id, or a folder one may open."""
        name, equals, model = text.partition("=")
        if equals:  # NAME=MODEL
            return f"{name}={self.model(model, what)}"
        if text in BUNDLED_MODELS:
            return text
        for kind in MODEL_KINDS:
            if text in {entry.path for entry in self.store.records(kind)}:
                return text
        if HUB_ID.fullmatch(text) and not os.path.lexists(text):
            return text
        return self.file(text, what)

    def file(self, text: str, what: str) -> str:
        """A path inside the workspace, or inside a folder that the app was started with, absolute.

        A relative one is relative to the workspace. Raises BadInput for any other.
        """
        roots = (self.store.workspace, *self.folders)
        path = Path(os.path.realpath(self.store.workspace / os.path.expanduser(text)))
        if any(path.is_relative_to(os.path.realpath(root)) for root in roots):
            return str(path)
        raise self.outside(text, what)

    def outside(self, text: str, what: str) -> BadInput:
        return BadInput(
            f"{what} {text[:200]!r} is not in the workspace",
            f"a path inside {self.store.workspace}",
            "put it there, or start the app with --folder and the folder that holds it",
        )
