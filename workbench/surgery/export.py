"""What makes a folder of a student with custom blocks load anywhere: the modeling file, and the two
places that name it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import students
from ..families import FAMILIES, HYBRID, by_class, is_hybrid
from ..models import read_config, transformer_folder
from ..models.file_io import write_synced
from ..records import BadInput, jsonfile
from .student_config import CUSTOM, needs_code


def finish(folder: Path, config: dict[str, Any], family: str) -> dict[str, Any]:
    """The config to save beside a student's weights, for a config that `config_changes` was applied
    to. Writes the modeling file into the transformer's folder, where one is needed.

    A student that the stock class can hold gets the stock class and no file, also where its teacher
    had custom blocks.
    """
    row = FAMILIES[family]
    config = {key: value for key, value in without_origin(config).items() if key != "auto_map"}
    if not needs_code(config):
        stock = {key: value for key, value in config.items() if key not in CUSTOM}
        return stock | {"_class_name": row.transformer}
    name = students.module_name(family)
    class_name = HYBRID + row.transformer
    write_synced(folder / f"{name}.py", students.source(family))
    return config | {"_class_name": class_name, "auto_map": {"AutoModel": f"{name}.{class_name}"}}


def without_origin(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the path that it was loaded from, which is of one machine and its user."""
    return {key: value for key, value in config.items() if key != "_name_or_path"}


def model_index(index: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's model_index.json for a transformer of this (finished) config."""
    index = without_origin(index)
    custom = config.get("auto_map", {}).get("AutoModel")
    if custom:
        return index | {"transformer": custom.split(".")}
    library = by_class(config["_class_name"]).library
    return index | {"transformer": [library, config["_class_name"]]}


def repair(folder: Path | str) -> bool:
    """Repair the folder of a student that was saved without its modeling file, or whose
    model_index.json names a module of another machine; weights are not touched. Returns whether
    anything was wrong.

    `folder` is a pipeline or a transformer folder. Raises BadInput for a config whose class is not
    a student's.
    """
    folder = Path(folder)
    inner = transformer_folder(folder)
    config = read_config(inner / "config.json")
    class_name = config["_class_name"]
    if not is_hybrid(class_name):
        raise not_a_student(inner, config)
    family = by_class(class_name).name
    code = inner / f"{students.module_name(family)}.py"
    stale = [file for file in inner.glob("modeling_hybrid_*.py") if file.name != code.name]
    broken = bool(stale) or not code.is_file()
    broken = broken or code.read_text(encoding="utf-8") != students.source(family)
    finished = finish(inner, config, family)
    # a config that says where it was loaded from needs no repair
    broken |= _rewritten(inner / "config.json", without_origin(config), finished)
    for file in stale:
        file.unlink()
    if (folder / "model_index.json").is_file():
        index = jsonfile.read_object(folder / "model_index.json", "model index")
        complete = model_index(index, finished)
        broken |= _rewritten(folder / "model_index.json", without_origin(index), complete)
    return broken


def not_a_student(folder: Path, config: dict[str, Any]) -> BadInput:
    """The error for a folder of a stock class."""
    name = config["_class_name"]
    if needs_code(config):
        return BadInput(
            f"{folder} was saved by {name}, which knows no single-stream blocks and no removed "
            f"parts",
            f"class {HYBRID}{name}",
            "its weights are not the student's: save again from the student",
        )
    return BadInput(
        f"{folder} is a stock {name}", "a student with custom blocks", "nothing needs repair"
    )


def _rewritten(path: Path, old: dict[str, Any], new: dict[str, Any]) -> bool:
    if old != new:
        write_synced(path, json.dumps(new, indent=2) + "\n")
    return old != new
