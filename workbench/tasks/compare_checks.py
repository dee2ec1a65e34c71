"""Checks of a comparison's models, names and output, before anything is sampled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .. import models
from ..families import FAMILIES
from ..models.pipeline_folders import check_pipeline
from ..records import BadInput, jsonfile
from .context import Context
from .resolve import BUNDLED, Model, resolve

QUANTISED = "quantized"  # students that were quantised for a comparison, in its folder
VAE_LEVELS = ("block_out_channels", "dim_mult", "encoder_block_out_channels")  # lists, in configs


def check_model(source: str, context: Context) -> Model:
    """A model that can be sampled. Its headers are read, no weights are loaded.

    Raises BadInput for an incomplete pipeline, for missing weights, and for a family whose sampler
    the workbench does not drive.
    """
    model = resolve(source, context.store)
    if not models.is_pipeline(model.folder):
        expected = "a pipeline folder with model_index.json: a teacher or a student"
        raise BadInput(f"model {source} has no model_index.json", expected, "check the path")
    check_pipeline(model.folder)
    family = model.description.family
    if FAMILIES[family].guidance is None:
        drivable = ", ".join(name for name, row in FAMILIES.items() if row.guidance)
        raise BadInput(f"model {source} of family {family}", drivable, "choose another")
    return model


def check_alike(first: Model, other: Model) -> None:
    """Refuse a model whose pictures do not begin with the same noise as the first one's."""
    family, other_family = first.description.family, other.description.family
    if other_family != family:
        found = f"model {other.name} of family {other_family}"
        expected = f"family {family}, as {first.name}"
        raise BadInput(found, expected, "compare models of one family")
    if latent_shape(other) != latent_shape(first):
        found = f"model {other.name} with latents {latent_shape(other)}"
        expected = f"{latent_shape(first)}, as {first.name}"
        raise BadInput(found, expected, "compare models that share a VAE")


def latent_shape(model: Model) -> str:
    """Channels of the latents and levels of the VAE, in words."""
    channels = f"{model.description.config.get('in_channels')} channels"
    config = model.folder / "vae" / "config.json"
    if not config.is_file():
        return channels
    vae = jsonfile.read_object(config, "VAE config")
    for key in VAE_LEVELS:
        if isinstance(vae.get(key), list):
            return f"{channels}, {len(vae[key])} VAE levels"
    return channels


def names_of(given: Sequence[str], compared: Sequence[Model]) -> list[str]:
    """Names on the page: those given ("" for none), else the folders' names, numbered where they
    repeat. Raises BadInput for too many names and for one given twice.
    """
    chosen = [name for name in given if name]
    if len(given) > len(compared) or len(set(chosen)) < len(chosen):
        found = f"names {', '.join(given)} for {len(compared)} models"
        raise BadInput(found, "one name for each model, all different", "fix --names")
    own = [name_of(model) for model in compared]
    names = [*given, *[""] * (len(compared) - len(given))]
    for position, name in enumerate(own):
        if not names[position]:
            repeats = own.count(name) > 1 or name in names
            names[position] = numbered(name, names) if repeats else name
    return names


def name_of(model: Model) -> str:
    return model.name if model.name in BUNDLED else model.title


def numbered(name: str, taken: Sequence[str]) -> str:
    """The name with the first number that makes it a new one."""
    number = 1
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def check_out(out: Path) -> None:
    """Refuse a file, a folder with something else in it, and a place that cannot be written."""
    expected = "a new or empty folder, or a comparison to continue"
    if out.exists() and not out.is_dir():
        raise BadInput(f"-o {out} is a file", expected, "choose another -o")
    if out.is_dir() and is_used(out) and not is_comparison(out):
        raise BadInput(f"-o {out} holds something else", expected, "choose another -o")
    parent = out
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        raise BadInput(f"-o {out} cannot be written", "a folder of yours", "choose another -o")


def is_used(folder: Path) -> bool:
    """Whether a folder holds more than hidden files, such as locks."""
    return any(not path.name.startswith(".") for path in folder.iterdir())


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison, finished or not."""
    if (folder / "comparison.json").is_file():
        return True
    begun = ("images/*/settings.json", f"{QUANTISED}/*/card.json")
    return any(any(folder.glob(pattern)) for pattern in begun)
