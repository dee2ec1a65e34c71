"""The plan: what each student block is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from . import yamlfile
from .files import write_atomic
from .record import Record
from .teacher import Stream

Init = Literal["first", "last", "middle", "mean"]
BLOCKS = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
    ],
    "description": "A teacher block, or [first, last] of a run of them, both counted.",
}


class Modulation(Record):
    """The AdaLN linears of a block in two factors (docs/modulation.md)."""

    rank: int = Field(ge=1, description="Directions of the conditioning vector that are kept.")


class Span(Record):
    """What one student block is made of: teacher blocks first..last (inclusive), and how it starts
    out.
    """

    blocks: Annotated[tuple[int, int], WithJsonSchema(BLOCKS)]
    init: Init = Field(
        default="first",
        description="Which of the span's teacher blocks it starts as; mean: their average.",
    )
    gain: float = Field(
        default=1.0,
        gt=0,
        lt=1e4,
        description="Scale of its residual step; the span's length takes its whole step.",
    )
    stream: Stream | None = Field(
        default=None,
        description="single: text shares the image branch's weights. Unset: as in the teacher.",
    )
    drop: tuple[str, ...] = Field(
        default=(),
        description="Parts that go: attn, mlp, modulation; of the text stream text.attn, ..",
    )
    modulation: Modulation | Literal["keep"] | None = Field(
        default=None,
        description="rank: its AdaLN linears in two factors of this rank. keep: as in the teacher. "
        "Unset: the plan's.",
    )

    @field_validator("blocks", mode="before")
    @classmethod
    def _one_or_two(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | list | tuple):
            raise ValueError("a block number, or [first, last]")
        pair = (value, value) if isinstance(value, int) else tuple(value)
        if len(pair) == 1:
            pair = pair * 2
        if len(pair) != 2 or not all(type(b) is int for b in pair):
            raise ValueError("a block number, or [first, last]")
        return pair

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.blocks[0] <= self.blocks[1]:
            raise ValueError("[first, last] with the lower block number first")
        if not 0 < self.gain < 1e4:
            raise ValueError("a gain above 0 and below 10000")
        return self

    @property
    def first(self) -> int:
        return self.blocks[0]

    @property
    def last(self) -> int:
        return self.blocks[1]

    def __len__(self) -> int:
        return self.last - self.first + 1

    @property
    def source(self) -> tuple[int, ...]:
        """The teacher blocks whose weights make this block."""
        picks = {"first": self.first, "last": self.last, "middle": (self.first + self.last) // 2}
        return (
            tuple(range(self.first, self.last + 1)) if self.init == "mean" else (picks[self.init],)
        )

    @property
    def rank(self) -> int | None:
        """Rank of its modulation; None where that stays as in the teacher."""
        return self.modulation.rank if isinstance(self.modulation, Modulation) else None

    @property
    def plain(self) -> bool:
        """Whether this block is a teacher block, unchanged."""
        changed = self.gain != 1 or self.stream or self.drop or self.rank
        return len(self) == 1 and not changed

    def as_yaml(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        out: dict[str, Any] = {"blocks": self.first if len(self) == 1 else [self.first, self.last]}
        if self.init != "first":
            out["init"] = self.init
        if self.gain != 1:
            out["gain"] = int(self.gain) if self.gain == int(self.gain) else self.gain
        if self.stream:
            out["stream"] = self.stream
        if self.drop:
            out["drop"] = list(self.drop)
        if self.modulation is not None:
            out["modulation"] = self.model_dump(mode="json")["modulation"]
        return out


class Plan(Record):
    """What the student is made of: per stack, a partition of the teacher's blocks into contiguous
    spans.
    """

    what: ClassVar[str] = "plan"
    teacher: str = Field(description="demo, demo-12, a folder, or a Hub id[@revision].")
    family: str = Field(description="The families table's name of the teacher's architecture.")
    origin: dict[str, Any] = Field(
        default_factory=dict,
        description="Where the plan comes from: the rule and what it was given.",
    )
    stacks: dict[str, list[Span]] = Field(
        description="Stack path -> one span per student block: a partition of the teacher's blocks."
    )
    modulation: Modulation | None = Field(
        default=None, description="Of the spans that say nothing of their own."
    )

    @model_validator(mode="after")
    def _spans_say_all(self) -> Self:
        """Spans without a modulation of their own get the plan's: whoever reads a span needs
        nothing else.
        """
        if self.modulation is not None:
            for spans in self.stacks.values():
                spans[:] = [filled(span, self.modulation) for span in spans]
        return self

    def depth(self) -> dict[str, int]:
        return {path: len(spans) for path, spans in self.stacks.items()}

    def as_yaml(self) -> dict[str, Any]:
        """Plain data: the plan's modulation once, and only spans that differ say theirs."""
        out: dict[str, Any] = {
            "teacher": self.teacher,
            "family": self.family,
            "origin": dict(self.origin),
        }
        if self.modulation is not None:
            out["modulation"] = self.modulation.model_dump()
        out["stacks"] = {}
        for path, spans in self.stacks.items():
            out["stacks"][path] = [self._span_as_yaml(span) for span in spans]
        return out

    def _span_as_yaml(self, span: Span) -> dict[str, Any]:
        data = span.as_yaml()
        if self.modulation is not None and span.modulation is None:
            data["modulation"] = "keep"
        elif self.modulation is not None and span.modulation == self.modulation:
            del data["modulation"]
        return data

    def save(self, path: Path | str) -> Path:
        """Write YAML, one span a line. Comments of an older file at `path` survive."""
        return write_atomic(Path(path), yamlfile.update(Path(path), self.as_yaml()))


def filled(span: Span, modulation: Modulation) -> Span:
    """The span with this modulation, unless it has its own."""
    if span.modulation is not None:
        return span
    return span.model_copy(update={"modulation": modulation})
