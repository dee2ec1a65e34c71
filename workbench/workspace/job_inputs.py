"""What a job is given: its typed spec, and the files that the spec names, as they are now.

Small files are copied into the job's folder, so that a later edit changes nothing. Large ones stay
in their place and are known by path, size and time; a job whose large input has changed since does
not start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..plugins import load_plugin, loaded_plugins
from ..records import BadInput, write_atomic
from ..records.record import Record
from ..specs import VerbSpec, facts, parse_spec

COPY_LIMIT = 16 * 2**20  # bytes
LARGE_INPUTS = "large-inputs.json"


class LargeInput(Record):
    """An input file that is not copied. field: of the spec. mtime: in nanoseconds."""

    field: str
    path: str
    size: int
    mtime: int


LargeInputs = TypeAdapter(list[LargeInput])


# --- the spec -------------------------------------------------------------------------------------


def typed_spec(verb: str, spec: VerbSpec | Mapping[str, Any], source: str = "") -> VerbSpec:
    """A verb's spec with its plugin files loaded; typed ones stay as they are.

    Raises BadInput for an unknown verb, an unknown key or a wrong value.
    """
    if isinstance(spec, VerbSpec):
        if spec.verb != verb:
            raise BadInput(f"{verb}: the spec of {spec.verb}", f"the spec of {verb}", "pass that")
        load_plugins(spec.plugins)
        return spec
    load_plugins(spec.get("plugins") or [])
    return parse_spec(verb, dict(spec), source)


def load_plugins(files: Iterable[str]) -> None:
    """Load plugin files, so that the rows they register are there when a spec is checked."""
    for file in files:
        load_plugin(file)


def with_loaded_plugins(spec: VerbSpec) -> VerbSpec:
    """The spec with the plugin files of this process: the job's own process loads them too."""
    files = [str(Path(file).expanduser().resolve()) for file in spec.plugins]
    return spec.model_copy(update={"plugins": list(dict.fromkeys([*files, *loaded_plugins()]))})


# --- the files that it names ----------------------------------------------------------------------


def input_files(spec: VerbSpec, but: Collection[str] = ()) -> dict[str, Path]:
    """Field -> the file that it names; folders and names of bundled things are left out.

    Plugin files are too: they may import what lies beside them. but: real paths that somebody is
    still to write. Raises BadInput where a file does not exist.
    """
    files = {}
    for fact in facts(type(spec)):
        value = getattr(spec, fact.name)
        if fact.place not in ("file", "file-or-name", "file-or-folder"):
            continue
        if not isinstance(value, str):
            continue
        path = Path(value)
        if os.path.realpath(path) in but:
            continue
        if path.is_file():
            files[fact.name] = path
        elif path.is_absolute() and not path.exists():
            raise BadInput(
                f"{fact.name} {value} does not exist", "a readable file", "check the path"
            )
    return files


def copy_inputs(spec: VerbSpec, folder: Path, but: Collection[str] = ()) -> dict[str, str]:
    """Copy the small input files into a job's folder; returns field -> path inside that folder.
    but: as for `input_files`.

    Side effects: lists the large ones in large-inputs.json.
    """
    copies = {}
    large = []
    for field, path in input_files(spec, but).items():
        status = path.stat()
        if status.st_size > COPY_LIMIT:
            absolute = str(path.absolute())
            stamp = LargeInput(
                field=field, path=absolute, size=status.st_size, mtime=status.st_mtime_ns
            )
            large.append(stamp)
            continue
        copy = Path("inputs") / field / path.name  # two inputs may have one name
        (folder / copy).parent.mkdir(parents=True)
        shutil.copy2(path, folder / copy)
        copies[field] = str(copy)
    if large:
        text = LargeInputs.dump_json(large, indent=1).decode() + "\n"
        write_atomic(folder / LARGE_INPUTS, text)
    return copies


def check_large_inputs(folder: Path) -> None:
    """Raises BadInput where a large input file is not what it was when the job was queued."""
    listed = folder / LARGE_INPUTS
    if not listed.exists():
        return
    for entry in LargeInputs.validate_json(listed.read_bytes()):
        try:
            status = Path(entry.path).stat()
        except OSError:
            raise changed(entry, "is gone") from None
        if status.st_size != entry.size:
            raise changed(entry, f"has {status.st_size} bytes instead of {entry.size}")
        if status.st_mtime_ns != entry.mtime:
            raise changed(entry, "has been written again")


def changed(entry: LargeInput, what: str) -> BadInput:
    return BadInput(
        f"{entry.field} {entry.path} {what} since the job was queued",
        "the file as it was",
        "queue a new job",
    )
