"""The sensitivity map: rows of scores, higher = keep."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from .record import Record

# the end of a file's name beside a map: the conditioning vectors of the calls it was measured on
VECTORS = ".conditioning.safetensors"


class Row(Record):
    """One score. `last` is set where the row covers a span; timestep and stderr may be null (other
    metrics). `samples`: what the score is a mean of, null where it is not known.
    """

    stack: str
    block: int
    last: int | None = None
    edit: str
    timestep: float | None = None  # scheduler units: 1000 is pure noise, 0 the finished picture
    score: float
    stderr: float | None = None
    samples: int | None = None
    flag: str | None = None


class Stability(Record):
    """Whether other prompts would give the same order of blocks: the rank correlation of the order
    when the prompts are resampled, its mean and 95 % interval.

    All three are null where all blocks score the same: there is no order to correlate with.
    """

    what: ClassVar[str] = "stability"
    spearman: float | None
    low: float | None
    high: float | None
    prompts: int
    stable: bool

    @property
    def reading(self) -> str:
        if self.spearman is None:
            return "undefined (all blocks score the same)"
        return f"{self.spearman:.2f} ({self.low:.2f} to {self.high:.2f})"


class Race(Record):
    """Which blocks an edit affects least, by a scan that stopped measuring settled blocks.

    lowest: those blocks, as (stack, block). undecided: blocks for which it is not settled whether
    they are among them; those in `lowest` have the lowest means. blocks: how many took part.
    """

    what: ClassVar[str] = "race"
    lowest: tuple[tuple[str, int], ...]
    undecided: tuple[tuple[str, int], ...]
    blocks: int

    @property
    def reading(self) -> str:
        if not self.undecided:
            return f"all {self.blocks} blocks settled"
        names = ", ".join(str(block) for _, block in self.undecided)
        return f"{len(self.undecided)} of {self.blocks} blocks not settled ({names})"


class SensitivityMap(Record):
    """How much the teacher's prediction changes under each edit of each block at each timestep.
    Higher = keep.
    """

    what: ClassVar[str] = "sensitivity map"
    teacher: str
    fingerprint: str
    family: str
    metric: str = "prediction"
    unit: str = "relative squared change of the prediction"
    direction: str = "higher = keep"
    rows: list[Row]
    # prompts, prompts_hash, seeds, guidance, steps, size, samples, stability or race
    measured: dict[str, Any] = Field(default_factory=dict)
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

    @property
    def stability(self) -> dict[str, Stability]:
        """Edit -> how stable its order of blocks is; empty where it was not measured."""
        found = self.measured.get("stability") or {}
        return {edit: Stability.parse(one, "measured.stability") for edit, one in found.items()}

    @property
    def races(self) -> dict[str, Race]:
        """Edit -> which blocks it affects least; empty where there was no race."""
        found = self.measured.get("race") or {}
        return {edit: Race.parse(one, "measured.race") for edit, one in found.items()}

    @property
    def trust(self) -> str:
        """In words: is the order of blocks stable, or are more prompts needed? Of a race: which
        blocks are settled. Empty where neither was measured.
        """
        if self.races:
            return "; ".join(
                f"the {len(race.lowest)} lowest by {edit}: {race.reading}"
                for edit, race in self.races.items()
            )
        found = self.stability
        undefined = [edit for edit, one in found.items() if one.spearman is None]
        ordered = {edit: one for edit, one in found.items() if one.spearman is not None}
        sentences = []
        if ordered:
            shaky = {edit: one for edit, one in ordered.items() if not one.stable}
            verdict = "more prompts are needed" if shaky else "the order of blocks is stable"
            readings = [f"{edit} {one.reading}" for edit, one in (shaky or ordered).items()]
            prompts = next(iter(ordered.values())).prompts
            sentences.append(f"{verdict}: {', '.join(readings)}")
            sentences.append(
                f"rank correlation of the order when the {prompts} prompts are resampled"
            )
        if undefined:
            sentences.append(f"no order of blocks by {', '.join(undefined)}: all score the same")
        return "; ".join(sentences)
