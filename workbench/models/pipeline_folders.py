"""Whether a pipeline folder can be sampled from prompts, by its model_index.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import transformers

from ..records import BadInput, jsonfile, read_text
from .headers import file_headers

# words in the names of pipelines that sample from a picture beside the prompt
FROM_PICTURES = ("Edit", "Fill", "Inpaint", "Img2Img", "ImageToVideo", "Control", "Redux")
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
WITH_WEIGHTS = ("text_encoder", "vae", "image_encoder", "transformer")  # begin of names
RECORDED = "profile it with --inputs, recorded calls of its transformer"


def check_pipeline(path: Path) -> None:
    """Refuse a pipeline that diffusers cannot build, that lacks a component's folder or its text
    encoder, or that needs a picture to sample.

    Nothing is loaded. `info`, `plan` and `build` do without: they read the transformer alone.
    """
    index = pipeline_index(path)
    check_pipeline_class(path, index.get("_class_name"))
    components = {name: entry for name, entry in index.items() if is_component(entry)}
    folders = {entry.name for entry in path.iterdir() if entry.is_dir()}
    for name, (_, class_name) in components.items():
        if class_name is not None and name not in folders:  # a name may be no file name at all
            raise BadInput(
                f"{path} lacks its component {name}",
                f"the folder {name}, as model_index.json says",
                "copy it there, or download the whole pipeline",
            )
    check_components(path, components)
    encoders = {name: entry for name, entry in components.items() if "text_encoder" in name}
    if encoders and all(entry[1] is None for entry in encoders.values()):
        raise BadInput(
            f"{path} is a pipeline without a text encoder",
            "one that samples from prompts",
            f"copy the text encoder there, or {RECORDED}",
        )


def check_components(path: Path, components: Mapping[str, Any]) -> None:
    """Refuse a component of a class that its library lacks, without its weights, or whose weights
    are damaged; and a pipeline without a component that its class needs.
    """
    for name, (library, class_name) in components.items():
        if class_name is None or not isinstance(class_name, str):
            continue
        module = LIBRARIES.get(library)
        if module and class_name not in names_in(library) and not hasattr(module, class_name):
            raise BadInput(
                f"{path}: component {name} is a {class_name}, which {library} "
                f"{module.__version__} does not have",
                "a class of that library",
                f"install a {library} that has it, or correct model_index.json",
            )
        if name.startswith(WITH_WEIGHTS) and name != "transformer":
            check_component_weights(path / name)
    pipeline = getattr(diffusers, str(pipeline_index(path).get("_class_name")), None)
    if pipeline is None:
        return
    needed, _ = pipeline._get_signature_keys(pipeline)
    missing = sorted(set(needed) - components.keys() - set(pipeline._optional_components))
    if missing:
        raise BadInput(
            f"{path} lacks the components {', '.join(missing)} of a {pipeline.__name__}",
            "every component in model_index.json",
            "correct _class_name in model_index.json, or download the whole pipeline",
        )


@cache
def names_in(library: str) -> frozenset[str]:
    """The names that one of LIBRARIES offers. It imports none of them, and takes a fifth of a
    second to list them.
    """
    return frozenset(dir(LIBRARIES[library]))


def check_component_weights(folder: Path) -> None:
    """Refuse the folder of a text encoder, VAE and the like without weights, or with damaged ones."""
    files = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin")]
    if not files:
        names = ", ".join(sorted(file.name for file in folder.iterdir())[:4])
        raise BadInput(
            f"{folder} has no weights ({names})",
            "safetensors files beside its config",
            "copy or download the weights too",
        )
    for file in files:
        if file.suffix == ".safetensors":
            file_headers(file)


def pipeline_index(path: Path) -> Mapping[str, Any]:
    """What model_index.json holds. Raises BadInput where it is not a JSON object."""
    file = path / "model_index.json"
    try:
        index = jsonfile.parse(read_text(file, "pipeline index", jsonfile.MOST_BYTES))
    except jsonfile.JSONError:
        index = None
    if not isinstance(index, dict):
        found = f"{file} is not a JSON object"
        raise BadInput(found, "diffusers' model_index.json", "copy or download the file again")
    return index


def check_pipeline_class(path: Path, name: Any) -> None:
    """Refuse a class that diffusers lacks, and one that samples from pictures. A list names code in
    the folder, which is refused elsewhere.
    """
    if isinstance(name, list):
        return
    if not isinstance(name, str):
        found = f"{path}/model_index.json names no _class_name"
        raise BadInput(found, "a pipeline class of diffusers", "copy or download the file again")
    if not hasattr(diffusers, name):
        raise BadInput(
            f"{path}: pipeline class {name} is not in diffusers {diffusers.__version__}",
            "a pipeline class of diffusers",
            "install a diffusers that has it, or correct _class_name in model_index.json",
        )
    if any(word in name for word in FROM_PICTURES):
        raise BadInput(
            f"{path} is a {name}, which samples from a picture",
            "a text-to-image pipeline",
            RECORDED,
        )


def is_component(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2
