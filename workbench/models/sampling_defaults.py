"""How a model is meant to be sampled: from its pipeline's signature, its family's row, its configs
and its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers

from ..families import Family, FewSteps
from ..records import BadInput, jsonfile
from ..records.picture_size import Size, size_of
from .pipeline_folders import pipeline_index

STEPS, GUIDANCE, SIDE = 30, 4.0, 1024  # where nothing says otherwise
NO_PROMPT = " "  # the negative prompt of who gives none


@dataclass(frozen=True)
class Sampling:
    """How pictures of a model are sampled. sampled_as: where the numbers come from, in words.
    negative: the negative prompt, for models that are guided with one.
    """

    steps: int = STEPS
    guidance: float = GUIDANCE
    size: Size = SIDE
    sampled_as: str = ""
    negative: str = NO_PROMPT

    def changed(
        self,
        steps: int | None = None,
        guidance: float | None = None,
        size: Size | None = None,
        negative: str | None = None,
    ) -> Sampling:
        """The same with the values that are given; None leaves one as it is."""
        given = {"steps": steps, "guidance": guidance, "size": size, "negative prompt": negative}
        asked = [name for name, value in given.items() if value is not None]
        words = self.sampled_as
        if asked and words:
            words = f"{', '.join(asked)} as asked; else {words}"
        return Sampling(
            self.steps if steps is None else steps,
            self.guidance if guidance is None else guidance,
            self.size if size is None else size,
            words,
            self.negative if negative is None else negative,
        )

    @property
    def in_words(self) -> str:
        """One line for people: steps, guidance, size and where they come from."""
        size = self.size if isinstance(self.size, str) else f"{self.size}x{self.size}"
        line = f"{self.steps} steps, guidance {self.guidance:g}, {size} pixels"
        if self.negative != NO_PROMPT:
            line += f", negative prompt {self.negative[:60]!r}"
        return f"{line} ({self.sampled_as})" if self.sampled_as else line


def default_sampling(
    family: Family, config: Mapping[str, Any], name: str, folder: Path | None = None
) -> Sampling:
    """How a model of this family is sampled unless a person says otherwise.

    config: the transformer's. name: the model's, as people call it: that of a few-step model often
    says so, and nothing else does. folder: of the pipeline, if it is here; its own class counts,
    else the family's. Nothing is loaded.
    """
    index: Mapping[str, Any] = {}
    if folder is not None and (folder / "model_index.json").is_file():
        index = pipeline_index(folder)
    pipeline = pipeline_class(index, family)
    usual = {key: each.default for key, each in call_parameters(pipeline).items()}
    steps = number(usual.get("num_inference_steps"), STEPS)
    guidance = number(usual.get(family.guidance or "guidance_scale"), GUIDANCE)
    guidance = guider_scale(folder) or guidance
    words = f"defaults of {pipeline.__name__}" if pipeline else "assumed"
    few = few_steps(family, config, index, name)
    if few is not None:
        steps, guidance, words = few.steps, few.guidance, few.about
    return Sampling(int(steps), float(guidance), default_size(family, config, usual, folder), words)


def pipeline_class(index: Mapping[str, Any], family: Family) -> type | None:
    """The class that samples a model: as its model_index.json says, else its family's."""
    for name in (index.get("_class_name"), family.pipeline):
        found = getattr(diffusers, name, None) if isinstance(name, str) else None
        if isinstance(found, type):
            return found
    return None


def guider_scale(folder: Path | None) -> float | None:
    """The guidance scale of a pipeline that has it in a component of its own."""
    file = folder / "guider" / "guider_config.json" if folder else None
    if file is None or not file.is_file():
        return None
    scale = jsonfile.read_object(file, "guider config").get("guidance_scale")
    return float(scale) if isinstance(scale, int | float) else None


def call_parameters(pipeline: type | None) -> Mapping[str, inspect.Parameter]:
    """The parameters of a pipeline's call, by name."""
    return inspect.signature(pipeline.__call__).parameters if pipeline else {}


def number(default: object, other: float) -> float:
    """A parameter's default; `other` where it has none, or None."""
    return default if isinstance(default, int | float) else other


def few_steps(
    family: Family, config: Mapping[str, Any], index: Mapping[str, Any], name: str
) -> FewSteps | None:
    """The kind of few-step model that this is, if it is one."""
    for few in family.few_steps:
        if few.describes({**index, **config}, name):
            return few
    return None


def default_size(
    family: Family, config: Mapping[str, Any], usual: Mapping[str, Any], folder: Path | None
) -> Size:
    """The pipeline's default height and width; else the transformer's sample_size times the VAE's
    stride; else the family's side.
    """
    height, width = usual.get("height"), usual.get("width")
    if isinstance(height, int) and isinstance(width, int):
        return size_of(height, width)
    latents = config.get("sample_size")
    if isinstance(latents, int) and latents > 0:
        return latents * vae_stride(family, config, folder)
    return family.side


def vae_stride(family: Family, config: Mapping[str, Any], folder: Path | None) -> int:
    """Pixels a side of one latent: by the VAE's levels, else by the family's token."""
    file = folder / "vae" / "config.json" if folder else None
    if file is not None and file.is_file():
        levels = jsonfile.read_object(file, "VAE config").get("block_out_channels")
        if isinstance(levels, list) and levels:
            return int(2 ** (len(levels) - 1))
    patch = config.get("patch_size")
    return family.token_pixels // (patch if isinstance(patch, int) and patch > 0 else 1)


def check_negative(family: Family, guidance: float, folder: Path | None) -> None:
    """Refuse a negative prompt where sampling has no branch that would take it."""
    index: Mapping[str, Any] = {}
    if folder is not None and (folder / "model_index.json").is_file():
        index = pipeline_index(folder)
    pipeline = pipeline_class(index, family)
    taken = family.guidance is not None and family.negative and not family.is_class_conditional
    if not taken or "negative_prompt" not in call_parameters(pipeline):
        name = pipeline.__name__ if pipeline else family.name
        raise BadInput(
            f"a negative prompt for a {name}",
            "a pipeline that is guided with one",
            "leave --negative-prompt out",
        )
    if guidance <= 1:
        raise BadInput(
            f"a negative prompt at guidance {guidance:g}",
            "guidance above 1: below, no branch takes it",
            "raise --guidance, or leave --negative-prompt out",
        )
