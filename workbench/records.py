"""The records every room passes to the next: immutable files, named by their content (DESIGN section 1).

A record is a frozen pydantic model with JSON in and out. Plans and distillation specs are YAML, because people write them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from . import yamlfile

Init = Literal["first", "last", "middle", "mean"]
Stream = Literal["dual", "single"]
LossName = Literal["feature", "output", "task"]
State = Literal["queued", "running", "stopping", "paused", "done", "failed", "cancelled", "lost"]


class BadInput(ValueError):
    """Input a person can mend. The message is one line: what was found, what was expected, what to do."""

    def __init__(self, found: str, expected: str, do: str):
        super().__init__(f"{found}; expected {expected}; {do}".replace("\n", " "))


def write_atomic(path: Path, text: str) -> Path:
    """Write text so that a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
    return path


def read_text(path: Path, what: str) -> str:
    """Read a text file, or say in one line why it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{what} {path} does not exist", "a readable file", "check the path") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{what} {path} is not UTF-8 (byte {error.start})", "UTF-8 text", "convert the file") from None
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read ({error.strerror})", "a readable file", "check the path") from None


def explain(error: ValidationError) -> str:
    """The first fault pydantic found, as `field: message`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{where}: {first['msg']}"


class Record(BaseModel):
    """An immutable record. `digest` names its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: ClassVar[str] = "record"

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def parse(cls, data: Any, source: str) -> Self:
        """Validate plain data; `source` names the file in the error."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise BadInput(f"{source} is no {cls.what} ({explain(error)})", f"a {cls.what}", "mend that field") from None

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read JSON, or YAML where the name ends so."""
        text = read_text(Path(path), cls.what)
        if str(path).endswith((".yaml", ".yml")):
            data = read_yaml(text, str(path), cls.what)
        else:
            try:
                data = json.loads(text)
            except json.JSONDecodeError as error:
                raise BadInput(f"{path} is not JSON (line {error.lineno}: {error.msg})", f"a {cls.what}",
                               "mend the file or write it again") from None
        return cls.parse(data, str(path))

    def save(self, path: Path | str) -> Path:
        return write_atomic(Path(path), json.dumps(self.model_dump(mode="json"), indent=1) + "\n")


def read_yaml(text: str, source: str, what: str) -> Any:
    """Parse YAML into plain data, or say in one line why not."""
    try:
        return yamlfile.parse(text)
    except yamlfile.YAMLError as error:
        first = " ".join(str(error).split())[:200]
        raise BadInput(f"{source} is not YAML ({first})", f"a {what} in YAML", "mend that line") from None


class Progress(Record):
    """What a long-running generator yields. The last one carries the result; `metrics` become a row of metrics.jsonl."""

    what: ClassVar[str] = "progress"
    step: int
    total: int
    message: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict)
    result: Any = None


# --- Teacher -------------------------------------------------------------------------------------------------------


class StackInfo(Record):
    """One ModuleList of blocks: which tensors each block holds. Most blocks share one layout."""

    what: ClassVar[str] = "stack"
    path: str
    kind: Stream
    layouts: list[dict[str, list[int]]]  # tensor name inside the block -> shape
    layout_of: list[int]  # block -> index into layouts

    @property
    def depth(self) -> int:
        return len(self.layout_of)

    def tensors(self, block: int) -> dict[str, list[int]]:
        return self.layouts[self.layout_of[block]]

    def block_parameters(self, block: int) -> int:
        return sum(numel(shape) for shape in self.tensors(block).values())


def numel(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


class Teacher(Record):
    """A diffusers transformer described without its weights (config, or safetensors headers)."""

    what: ClassVar[str] = "teacher"
    name: str  # as a person gave it: demo, a folder, a Hub id[@revision]
    family: str
    class_name: str
    stacks: list[StackInfo]
    outside: int  # parameters outside the stacks
    dtype: str = "bfloat16"
    fingerprint: str = ""  # of names, shapes and samples of the weights; empty where only a config was read
    config: dict[str, Any] = Field(default_factory=dict)  # the transformer's config.json

    @property
    def parameters(self) -> int:
        return self.outside + sum(s.block_parameters(b) for s in self.stacks for b in range(s.depth))

    def stack(self, path: str) -> StackInfo:
        for stack in self.stacks:
            if stack.path == path:
                return stack
        known = ", ".join(s.path for s in self.stacks)
        raise BadInput(f"stack {path!r} is not in {self.name}", f"one of {known}", "rename it")


# --- SensitivityMap ------------------------------------------------------------------------------------------------


class Row(Record):
    """One score. `last` is set where the row covers a span; timestep and stderr may be null (other metrics)."""

    stack: str
    block: int
    last: int | None = None
    edit: str
    timestep: float | None = None  # scheduler units: 1000 is pure noise, 0 the finished picture
    score: float
    stderr: float | None = None
    flag: str | None = None


class SensitivityMap(Record):
    """How much the teacher's answer changes under each edit of each block at each timestep. Higher = keep."""

    what: ClassVar[str] = "sensitivity map"
    teacher: str
    fingerprint: str
    family: str
    metric: str = "prediction"
    unit: str = "relative squared change of the prediction"
    direction: str = "higher = keep"
    rows: list[Row]
    measured: dict[str, Any] = Field(default_factory=dict)  # prompts, prompts_hash, seeds, guidance, steps, size, samples
    seconds: float = 0.0
    block_evaluations: int = 0
    naive_block_evaluations: int = 0

    @property
    def edits(self) -> list[str]:
        return list(dict.fromkeys(row.edit for row in self.rows))

    @property
    def timesteps(self) -> list[float]:
        """Distinct timesteps, from noise to picture."""
        return sorted({row.timestep for row in self.rows if row.timestep is not None}, reverse=True)


# --- Plan ----------------------------------------------------------------------------------------------------------


class Span(Record):
    """What one student block is made of: teacher blocks first..last (inclusive), and how it starts out."""

    blocks: tuple[int, int]
    init: Init = "first"
    gain: float = 1.0
    stream: Stream | None = None  # None: as in the teacher
    drop: tuple[str, ...] = ()

    @field_validator("blocks", mode="before")
    @classmethod
    def _one_or_two(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | list | tuple):
            raise ValueError(f"{value!r} is neither a block nor [first, last]")
        pair = (value, value) if isinstance(value, int) else tuple(value)
        if len(pair) == 1:
            pair = pair * 2
        if len(pair) != 2 or not all(type(b) is int for b in pair):
            raise ValueError(f"{value!r} is neither a block nor [first, last]")
        return pair

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.blocks[0] <= self.blocks[1]:
            raise ValueError(f"span {list(self.blocks)} does not run from a first block to a last one")
        if not 0 < self.gain < 1e4:
            raise ValueError(f"gain {self.gain} is not a positive number")
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
        return tuple(range(self.first, self.last + 1)) if self.init == "mean" else (picks[self.init],)

    @property
    def plain(self) -> bool:
        """Whether this block is a teacher block, unchanged."""
        return len(self) == 1 and self.gain == 1 and self.stream is None and not self.drop

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
        return out


class Plan(Record):
    """What the student is made of: per stack, a partition of the teacher's blocks into contiguous spans."""

    what: ClassVar[str] = "plan"
    teacher: str
    family: str
    origin: dict[str, Any] = Field(default_factory=dict)
    stacks: dict[str, list[Span]]

    def depth(self) -> dict[str, int]:
        return {path: len(spans) for path, spans in self.stacks.items()}

    def as_yaml(self) -> dict[str, Any]:
        return {"teacher": self.teacher, "family": self.family, "origin": dict(self.origin),
                "stacks": {path: [span.as_yaml() for span in spans] for path, spans in self.stacks.items()}}

    def save(self, path: Path | str) -> Path:
        """Write YAML, one span a line. Comments of an older file at `path` survive."""
        return write_atomic(Path(path), yamlfile.update(Path(path), self.as_yaml()))


# --- DistillSpec ---------------------------------------------------------------------------------------------------


class Loss(Record):
    """One term of a stage's loss. `normalised` divides by the target's mean square, so that spans weigh alike."""

    weight: float = 1.0
    form: Literal["plain", "normalised"] = "normalised"


class Stage(Record):
    """One distillation stage (DESIGN section 6)."""

    name: str
    teacher: Literal["original", "parent"] = "original"
    inputs: Literal["teacher", "student"] = "teacher"
    gradient: Literal["span", "full"] = "span"
    target: Literal["span-end", "own-block"] = "span-end"
    losses: dict[LossName, Loss] = {"feature": Loss()}
    train: Literal["merged", "after-first-cut", "all"] | dict[str, list[int]] = "merged"
    scale: Literal["none", "inverse-sensitivity", "binary"] = "none"
    steps: int = Field(default=100, ge=0)
    batch: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    warmup: int = Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    ema: float | None = Field(default=None, gt=0, lt=1)
    clip: float | None = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.losses:
            raise ValueError(f"stage {self.name!r} has no loss")
        if self.gradient == "span" and set(self.losses) != {"feature"}:
            raise ValueError(f"stage {self.name!r}: gradient 'span' can follow the feature loss only")
        return self


class DistillSpec(Record):
    """Stages in order, each with its losses and what trains."""

    what: ClassVar[str] = "distillation spec"
    name: str = "custom"
    seed: int = 0
    stages: list[Stage] = Field(min_length=1)
    notes: str = ""

    def save(self, path: Path | str) -> Path:
        return write_atomic(Path(path), yamlfile.update(Path(path), self.model_dump(mode="json")))


# --- Student, Comparison -------------------------------------------------------------------------------------------


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


class ModelResult(Record):
    """One model's figures in a comparison."""

    name: str
    source: str
    parameters: int
    bytes: int
    ms_per_step: float
    scores: dict[str, dict[str, Any]]  # scorer -> {overall, low, high, <category>: ...}
    retention: dict[str, float | None]  # scorer -> share of the first model's overall score
    difference: dict[str, dict[str, Any]] = Field(default_factory=dict)  # scorer -> paired difference to the first model


class Comparison(Record):
    """Models x prompts x seeds; images lie beside it as PNG."""

    what: ClassVar[str] = "comparison"
    suite: str
    prompts: list[str]
    seeds: list[int]
    steps: int
    guidance: float
    size: int
    models: list[ModelResult]
    images: dict[str, list[str]] = Field(default_factory=dict)  # model -> file names, one per prompt x seed
    seconds: float = 0.0
