"""`workbench compare`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_validator

from ..plugins import registry
from ..records.picture_size import Size
from . import fields
from .base import VerbSpec, option
from .placements import PlacementName
from .quantized_forms import QUANTIZED_FORMS
from .values import Names, Precision, split_names


class CompareSpec(VerbSpec):
    """Sample several models with the same prompts and seeds, score the images, write a page.

    The first model is the reference for the others.
    """

    verb: ClassVar[str] = "compare"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)

    models: list[str] = option(
        about="The teacher, then one or more students; NAME=MODEL gives a model a name on the page.",
        label="Models",
        positional=True,
        metavar="MODELS",
        place="model",
    )
    names: Names | None = option(
        None,
        "Names of the models on the page, in the same order, separated by commas.",
        label="Names on the page",
        usual="the folders' names",
        advanced=True,
    )
    out: str | None = fields.out("the comparison")
    suite: str | None = option(
        None,
        "Prompts to sample: scenes, general, or a .jsonl file with one prompt per line.",
        label="Prompt suite",
        place="file-or-name",
        usual="scenes for demo, else general",
    )
    prompts_per_category: int | None = fields.prompts_per_category("40")
    seeds: int = fields.seeds()
    sampling_steps: int | None = fields.sampling_steps()
    guidance: float | None = fields.guidance()
    size: Size | None = fields.size()
    negative: str | None = fields.negative()
    scorers: Names | None = option(
        None,
        "Scorers, separated by commas.",
        label="Scorers",
        choices=registry("scorer").names,
        usual="all that apply to the suite",
    )
    scorer_files: list[str] = option(
        [],
        "Scorer that is a command of its own (docs/extending.md); may be given several times.",
        label="Scorer files",
        flag="--scorer-file",
        metavar="FILE.yaml",
        place="file",
        advanced=True,
    )
    quantized: Names | None = option(
        None,
        "Compare each student after quantising, too, in these forms, separated by commas; the "
        "quantised students lie beside the pictures.",
        label="Also quantised",
        choices=lambda: list(QUANTIZED_FORMS),
        usual="none",
        metavar="FORMS",
        advanced=True,
    )
    dtype: Precision | None = fields.dtype(
        "bf16 for demo, else as stored; fp32 on a CPU without bf16"
    )
    placement: PlacementName = fields.placement()

    @model_validator(mode="before")
    @classmethod
    def _split_names(cls, data: Any) -> Any:
        models = data.get("models") if isinstance(data, Mapping) else None
        if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
            return data
        pairs = [split_name(model) for model in models]
        if not any(name for name, _ in pairs):
            return data
        names = split_names(data.get("names") or [])
        names += [""] * (len(models) - len(names))
        for number, (name, _) in enumerate(pairs):
            names[number] = name or names[number]
        return {**data, "models": [model for _, model in pairs], "names": names}


def split_name(text: str) -> tuple[str, str]:
    """ "NAME=MODEL" -> (NAME, MODEL); ("", text) where there is no name, or a path has a `=`."""
    name, equals, model = text.partition("=")
    if not equals or not name or "/" in name or Path(text).expanduser().exists():
        return "", text
    return name, model
