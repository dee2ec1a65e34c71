"""Where in a model folder the transformer lies, and what its config.json says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..families import HYBRID, is_hybrid
from ..records import BadInput, jsonfile
from .weight_files import SINGLE, conversion, kind_of

# keys of a config.json by which a student says what was done to its blocks
CUSTOM = ("single_stream_layers", "removed_parts", "modulation_rank")


@cache
def note(line: str) -> None:
    """A line on stderr, once."""
    print(f"note: {line}", file=sys.stderr, flush=True)


def is_pipeline(path: Path | str) -> bool:
    return (Path(path) / "model_index.json").is_file()


def transformer_folder(path: Path | str) -> Path:
    """The folder that holds the transformer's config and weights: `path/transformer` of a pipeline,
    or `path` itself. Raises BadInput where there is none.
    """
    path = Path(path)
    if not path.exists():
        found = f"{path} does not exist"
        raise BadInput(found, "a pipeline or transformer folder", "check the path")
    if is_pipeline(path):
        folder = path / "transformer"
        if not (folder / "config.json").is_file():
            raise BadInput(
                f"{path} is a pipeline without transformer/config.json",
                "a diffusion transformer pipeline",
                "use a DiT pipeline (U-Net pipelines have no stack of blocks)",
            )
        return folder
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file() or any(path.glob("*lora*.safetensors")):
            raise BadInput(
                f"{path} holds a LoRA, not a model",
                "a diffusers pipeline or transformer folder",
                "load it into its base model, fuse_lora(), unload_lora_weights(), and save that",
            )
        single = single_file(path)
        if single is not None:
            raise BadInput(
                f"{path} has {single.name} and no config.json",
                "a diffusers folder: config.json beside the weights",
                conversion(kind_of(single)),
            )
        raise BadInput(
            f"{path} has neither model_index.json nor config.json",
            "a diffusers pipeline or transformer folder",
            "point to the folder that has one",
        )
    return path


def single_file(folder: Path) -> Path | None:
    """The first checkpoint in one file that lies in a folder; None where there is none."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in SINGLE and path.is_file():
            return path
    return None


def read_config(path: Path) -> dict[str, Any]:
    """A transformer's config.json, with its class name. Raises BadInput for any other file."""
    config = jsonfile.read(path, "config")
    if isinstance(config, dict) and "_class_name" not in config and "model_type" in config:
        raise BadInput(
            f"{path} is the config of a transformers model ({config['model_type']})",
            "the config.json of a diffusers transformer",
            "point to the pipeline, or to its folder transformer",
        )
    if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
        raise BadInput(
            f"{path} names no _class_name",
            "the config.json of a diffusers transformer",
            "point to the transformer's config",
        )
    return config


def check_class(config: Mapping[str, Any], where: str) -> None:
    """Refuse a config of custom blocks under a stock class: it would load with random weights for
    what is not there.
    """
    name = str(config["_class_name"])
    if not is_hybrid(name) and any(config.get(key) for key in CUSTOM):
        raise BadInput(
            f"{where}: config.json has single-stream blocks, removed parts or modulation ranks, "
            f"but names the stock class {name}",
            f"class {HYBRID}{name}",
            "save it again from the student's own class",
        )
