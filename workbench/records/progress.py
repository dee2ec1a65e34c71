"""What long work yields while it runs."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from .record import Record


class Progress(Record):
    """One state of a long-running generator.

    step, total: how far it is; total 0 where that is not known. message: what it is doing.
    metrics: a row of metrics.jsonl. result: set on the last one only.
    """

    what: ClassVar[str] = "progress"
    step: int
    total: int
    message: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict)
    result: Any = None
