"""What makes a folder of a student with custom blocks load anywhere: the modeling file, and the two
places that name it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import students as hybrid
from ..families import FAMILIES, HYBRID, by_class
from ..models import read_config, transformer_folder
from ..models.checkpoints import write_synced
from ..records import BadInput, Plan, Teacher, read_text
from .settings import CUSTOM, needs_code


def finish(
    transformer_folder: Path, config: dict[str, Any], teacher: Teacher, plan: Plan
) -> dict[str, Any]:
    """The config to save beside a student's weights, for a config that `config_changes` was applied
    to; writes the modeling file.

    A student that the stock class can hold gets the stock class and no file, also where its teacher
    had custom blocks.
    """
    return _named(transformer_folder, config, plan.family)


def _named(folder: Path, config: dict[str, Any], family: str) -> dict[str, Any]:
    stock = FAMILIES[family].transformer
    config = {key: value for key, value in config.items() if key != "auto_map"}
    if not needs_code(config):
        return {key: value for key, value in config.items() if key not in CUSTOM} | {
            "_class_name": stock
        }
    name = hybrid.module_name(family)
    write_synced(folder / f"{name}.py", hybrid.source(family))
    return config | {
        "_class_name": HYBRID + stock,
        "auto_map": {"AutoModel": f"{name}.{HYBRID}{stock}"},
    }


def model_index(index: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's model_index.json for a transformer of this (finished) config."""
    custom = config.get("auto_map", {}).get("AutoModel")
    return index | {
        "transformer": custom.split(".") if custom else ["diffusers", config["_class_name"]]
    }


def repair(folder: Path | str) -> bool:
    """Mend the folder of a student that was saved without its modeling file, or whose
    model_index.json names a module of another machine; weights are not touched. Returns whether
    anything was wrong.

    `folder` is a pipeline or a transformer folder. Raises BadInput for a config whose class is not
    a student's.
    """
    folder = Path(folder)
    inner = transformer_folder(folder)
    config = read_config(inner / "config.json")
    if not config["_class_name"].startswith(HYBRID):
        if needs_code(config):
            raise BadInput(
                f"{inner} was saved by {config['_class_name']}, which knows no "
                f"single-stream blocks and no removed parts",
                f"class {HYBRID}{config['_class_name']}",
                "its weights are not the student's: save again from the student",
            )
        raise BadInput(
            f"{inner} is a stock {config['_class_name']}",
            "a student with custom blocks",
            "nothing needs mending",
        )
    family = by_class(config["_class_name"]).name
    ours = f"{hybrid.module_name(family)}.py"
    stale = [file for file in inner.glob("modeling_hybrid_*.py") if file.name != ours]
    kept = inner / ours
    broken = (
        bool(stale)
        or not kept.is_file()
        or kept.read_text(encoding="utf-8") != hybrid.source(family)
    )
    named = _named(inner, config, family)
    broken |= _rewritten(inner / "config.json", config, named)
    for file in stale:
        file.unlink()
    if (folder / "model_index.json").is_file():
        index = json.loads(read_text(folder / "model_index.json", "model index"))
        broken |= _rewritten(folder / "model_index.json", index, model_index(index, named))
    return broken


def _rewritten(path: Path, old: dict[str, Any], new: dict[str, Any]) -> bool:
    if old != new:
        write_synced(path, json.dumps(new, indent=2) + "\n")
    return old != new
