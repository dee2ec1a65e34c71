"""`workbench benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..plugins import registry
from ..records.picture_size import Size
from . import fields
from .base import VerbSpec, option
from .placements import PlacementName
from .values import Names, Precision


class BenchmarkSpec(VerbSpec):
    """Sample a published benchmark's prompts in the layout of its own scorer; read its results back.

    A run with the same output path adds what is missing. `--results` reads what the scorer found
    into the comparison there (docs/benchmarks.md).
    """

    verb: ClassVar[str] = "benchmark"
    also: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    also_flags: ClassVar[tuple[str, ...]] = ("steps",)
    shares_output: ClassVar[bool] = True

    name: str = option(
        about="The benchmark.",
        label="Benchmark",
        choices=registry("benchmark").names,
        positional=True,
        metavar="BENCHMARK",
    )
    models: list[str] = option(
        [],
        "Models to sample: a teacher, students, or both; none with --results.",
        label="Models",
        positional=True,
        metavar="MODELS",
        place="model",
    )
    names: Names | None = option(
        None,
        "Names of the models, in the same order, separated by commas.",
        label="Names",
        usual="the folders' names",
        advanced=True,
    )
    prompts: str | None = option(
        None,
        "The benchmark's own prompt file or folder, your copy of it.",
        label="Prompts",
        metavar="PATH",
        place="file-or-folder",
        usual="none, for scenes",
    )
    out: str | None = fields.out("pictures, layout and scores")
    results: list[str] = option(
        [],
        "What the benchmark's scorer found for a model: MODEL=FILE or a folder; may be given several "
        "times, also for one model.",
        label="Results",
        flag="--results",
        metavar="MODEL=PATH",
        place="model",  # NAME=PATH
    )
    shard: str | None = option(
        None,
        "Sample only this part, such as 2/4; parts may run at once. A run without it finishes.",
        label="Part",
        metavar="I/N",
        usual="everything",
        advanced=True,
    )
    seeds: int | None = option(
        None,
        "Images per prompt, one per seed.",
        label="Seeds per prompt",
        ge=1,
        usual="as many as the benchmark takes",
    )
    sampling_steps: int | None = fields.sampling_steps()
    guidance: float | None = fields.guidance()
    size: Size | None = fields.size()
    negative: str | None = fields.negative()
    dtype: Precision | None = fields.dtype(
        "bf16 for demo, else as stored; fp32 on a CPU without bf16"
    )
    placement: PlacementName = fields.placement()
