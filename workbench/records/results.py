"""The student's card, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .picture_size import Size
from .record import Record


class Quantization(Record):
    """How the weights of a quantised student are stored.

    to, library: its form, and what diffusers reads it with (specs.quantized_forms). packed:
    parameters in fewer bits. kept: what stays -> its precision and the reason. kept_blocks: blocks
    that stay in bf16, "<stack>.<block>". bytes, bf16_bytes: of the transformer's weights as they
    are, and in bf16. source, source_fingerprint: the student it was made from.
    """

    what: ClassVar[str] = "quantization"
    to: str
    library: str
    packed: int
    kept: dict[str, str] = Field(default_factory=dict)
    kept_blocks: list[str] = Field(default_factory=list)
    bytes: int
    bf16_bytes: int
    source: str
    source_fingerprint: str

    @property
    def ratio(self) -> float:
        """Share of the bytes in bf16."""
        return self.bytes / self.bf16_bytes


class Card(Record):
    """`card.json` of a student folder: where it came from, back to the original teacher."""

    what: ClassVar[str] = "card"
    teacher: str  # the direct parent, as given
    teacher_fingerprint: str
    original: str  # the first teacher of the chain
    original_fingerprint: str
    plan: dict[str, Any]
    original_plan: dict[str, Any] | None = None
    spec: dict[str, Any] | None = None
    sensitivity: str | None = None
    parameters: int
    teacher_parameters: int
    original_parameters: int
    stock: bool = True
    metrics: dict[str, Any] = Field(default_factory=dict)
    chain: list[dict[str, Any]] = Field(default_factory=list)
    # trained on guided targets, itself or a teacher that it was built from: see is_guided
    learned_guidance: bool = False
    quantization: Quantization | None = None  # null: weights as they are

    @property
    def is_guided(self) -> bool:
        """Whether the student's predictions are those of guided sampling: it was distilled on
        guided targets, or built from a student that was. (Older cards have their spec alone.)
        """
        stages = (self.spec or {}).get("stages", ())
        return self.learned_guidance or any(stage.get("guidance") is not None for stage in stages)


class Score(Record):
    """One scorer's figures for one model.

    overall: mean of the categories' means, each category counting equally; the mean over prompts
    where the suite has no categories. low, high: its 95 % interval, null for a single prompt.
    intervals: the same for each category. per_image: one value per picture, prompt by prompt and
    seed by seed; null where the scorer only judges whole sets.

    In JSON the categories stand beside `overall`: {"overall": 0.9, "low": .., "high": ..,
    "text": 0.8, .., "intervals": {"text": [0.7, 0.9], ..}, "unit": .., "direction": ..}.
    """

    what: ClassVar[str] = "score"
    overall: float
    low: float | None = None
    high: float | None = None
    by_category: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    per_image: list[float] | None = None
    unit: str = ""
    direction: str = "higher = better"

    @property
    def higher_is_better(self) -> bool:
        return not self.direction.startswith("lower")

    def interval(self, category: str) -> tuple[float | None, float | None]:
        """(low, high) of a category; of `overall` too."""
        if category == "overall":
            return self.low, self.high
        return self.intervals.get(category, (None, None))

    @model_validator(mode="before")
    @classmethod
    def _gather_categories(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "by_category" in data:
            return data
        fields = {key: value for key, value in data.items() if key in cls.model_fields}
        others = {key: value for key, value in data.items() if key not in cls.model_fields}
        # other scorers' notes in older files ("n", "model") are no categories
        others.pop("n", None)
        numbers = {key: value for key, value in others.items() if isinstance(value, int | float)}
        return {**fields, "by_category": numbers}

    @model_serializer(mode="wrap")
    def _spread_categories(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = serialize(self)
        data |= data.pop("by_category", {})
        if data.get("per_image") is None:
            data.pop("per_image", None)
        return data


TWO_POINTS = 0.02  # of a share


class Difference(Record):
    """A model's score minus another's on the same prompts and seeds: mean and 95 % interval.

    low, high: null for a single prompt. method: how the interval was computed. prompts_needed: how
    many prompts would tell a difference of TWO_POINTS from none, 8 times in 10; null for scores
    beyond 0..1, where prompts do not differ, and in older files.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    method: str = ""
    prompts_needed: int | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


class ModelResult(Record):
    """One model's figures in a comparison.

    ms_per_step: median milliseconds of the transformer for one sampling step of one picture, all
    `forwards_per_step` forwards of it. retention: scorer -> share of the first model's overall
    score; null where that means nothing. retention_intervals: its 95 % interval, over the same
    prompts and seeds of both; none in older files. difference: scorer -> paired difference to the first
    model. guidance: the scale that its pictures were sampled with; null in files of older versions,
    whose models share the comparison's. guidance_gap: the mean norm of its prediction with the prompt minus that without, over
    the first model's on the same noisy latents; 1 = the first model's, below 1 = collapsed.
    guidance_gap_cosine: mean cosine between the two; 1 = the same direction. Null where sampling
    has one branch.
    """

    name: str
    source: str
    parameters: int
    bytes: int
    ms_per_step: float
    forwards_per_step: int | None = None  # null in files of older versions
    guidance: float | None = None
    guidance_gap: float | None = None
    guidance_gap_cosine: float | None = None
    scores: dict[str, Score]
    retention: dict[str, float | None]
    retention_intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    difference: dict[str, Difference] = Field(default_factory=dict)


class Comparison(Record):
    """Models x prompts x seeds; images lie beside it as PNG.

    images: model -> file names, one per prompt and seed: prompt 0 with every seed, then prompt 1.
    guidance: of the models that have none of their own. sampled_as: where the settings come from.
    negative: the negative prompt.
    placement: how each model was held in memory; ms_per_step of streamed ones includes reading.
    """

    what: ClassVar[str] = "comparison"
    suite: str
    prompts: list[str]
    seeds: list[int]
    steps: int
    guidance: float
    size: Size  # pixels: a square's side, or "WIDTHxHEIGHT"
    models: list[ModelResult] = Field(min_length=1)
    images: dict[str, list[str]] = Field(default_factory=dict)
    categories: list[str] = Field(default_factory=list)  # of each prompt; empty: none
    seconds: float = 0.0
    sampled_as: str = ""
    negative: str = " "
    placement: str = "whole"

    @property
    def other_guidance(self) -> dict[str, float]:
        """Models that were sampled with another guidance than the comparison's: name -> scale."""
        others = {}
        for model in self.models:
            if model.guidance is not None and model.guidance != self.guidance:
                others[model.name] = model.guidance
        return others
