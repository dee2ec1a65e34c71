"""The sensitivity map: rows of scores, higher = keep."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from .record import Record


class Row(Record):
    """One score. `last` is set where the row covers a span; timestep and stderr may be null (other
    metrics).
    """

    stack: str
    block: int
    last: int | None = None
    edit: str
    timestep: float | None = None  # scheduler units: 1000 is pure noise, 0 the finished picture
    score: float
    stderr: float | None = None
    flag: str | None = None


class SensitivityMap(Record):
    """How much the teacher's answer changes under each edit of each block at each timestep. Higher
    = keep.
    """

    what: ClassVar[str] = "sensitivity map"
    teacher: str
    fingerprint: str
    family: str
    metric: str = "prediction"
    unit: str = "relative squared change of the prediction"
    direction: str = "higher = keep"
    rows: list[Row]
    # prompts, prompts_hash, seeds, guidance, steps, size, samples
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
    def trust(self) -> str:
        """In words: is the order of blocks stable, or are more prompts needed? Empty where it was
        not measured.
        """
        found: dict[str, dict[str, Any]] = self.measured.get("stability") or {}
        told = {
            edit: f"{edit} {one['spearman']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
            for edit, one in found.items()
        }
        shaky = [told[edit] for edit, one in found.items() if not one["stable"]]
        about = (
            f"rank correlation of the order when the {next(iter(found.values()))['prompts']} "
            f"prompts are resampled"
            if found
            else ""
        )
        if shaky:
            return f"more prompts are needed: {', '.join(shaky)}; {about}"
        return f"the order of blocks is stable: {', '.join(told.values())}; {about}" if told else ""
