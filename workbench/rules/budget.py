"""Budgets: how small a student must be, in blocks, parameters, bytes at a precision, or predicted
time per step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import plans
from ..plans import Tokens
from ..records import BadInput, Plan, Teacher

UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
HOW = "params=SHARE, bytes=SIZE@PRECISION or latency=SHARE"


@dataclass(frozen=True)
class Budget:
    """All that is set must hold. None: no limit of that kind."""

    keep: Mapping[str, int] | None = None  # stack -> student blocks at most
    params: float | None = None  # share of the teacher's parameters
    bytes: float | None = None  # of the transformer's weights at `precision`, without scales
    precision: str = "bf16"
    latency: float | None = None  # share of the teacher's predicted time per step (plans.speed)
    tokens: Tokens | None = None  # None: as the teacher is sampled

    @classmethod
    def parse(
        cls, text: Any, keep: Mapping[str, int] | None = None, tokens: Tokens | None = None
    ) -> Budget:
        """`params=0.5`, `bytes=6GB@int4`, `latency=0.5`, several with commas; a bare number is a
        share of the parameters.
        """
        values: dict[str, Any] = {"keep": keep, "tokens": tokens}
        if isinstance(text, int | float) and not isinstance(text, bool):
            text = f"params={text}"
        for item in str(text).split(",") if text is not None else []:
            name, _, value = item.strip().partition("=")
            if name == "bytes":
                values["bytes"], values["precision"] = _bytes(value, item)
            elif name in ("params", "latency"):
                values[name] = _share(value, item)
            else:
                raise BadInput(f"budget {item.strip()!r}", HOW, "write it like --budget params=0.5")
        return cls(**values)

    @property
    def empty(self) -> bool:
        return (
            self.keep is None
            and self.params is None
            and self.bytes is None
            and self.latency is None
        )

    def excess(self, plan: Plan, teacher: Teacher) -> float:
        """How far the plan is over the budget, as a share of the teacher (blocks, parameters or
        work); 0 where it is met.
        """
        over = 0.0
        if self.keep is not None:
            total = sum(stack.depth for stack in teacher.stacks)
            over += (
                sum(
                    max(0, len(spans) - self.keep.get(path, len(spans)))
                    for path, spans in plan.stacks.items()
                )
                / total
            )
        if self.params is not None or self.bytes is not None:
            over += (
                max(0.0, plans.parameters(plan, teacher) - self._parameters(teacher))
                / teacher.parameters
            )
        if self.latency is not None:
            over += max(0.0, plans.predicted_latency(plan, teacher, self.tokens) - self.latency)
        return over

    def _parameters(self, teacher: Teacher) -> float:
        limits = [] if self.params is None else [self.params * teacher.parameters]
        return min(
            [*limits, self.bytes / plans.BYTES[self.precision]]
            if self.bytes is not None
            else limits
        )

    def told(self) -> str:
        """As a person writes it."""
        parts = [] if self.params is None else [f"params={self.params:g}"]
        parts += [] if self.bytes is None else [f"bytes={self.bytes:.10g}@{self.precision}"]
        parts += [] if self.latency is None else [f"latency={self.latency:g}"]
        return ",".join(parts)


def _share(value: str, item: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise BadInput(
            f"budget {item.strip()}", "a share between 0 and 1", "write it like --budget params=0.5"
        )
    return share


def _bytes(value: str, item: str) -> tuple[float, str]:
    """6GB@int4 -> (6e9, int4)."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-zA-Z]*)\s*(?:@\s*(\w+))?\s*", value)
    unit, precision = (match[2].lower(), match[3] or "bf16") if match else ("", "")
    try:
        size = float(match[1]) * UNITS[unit] if match else 0.0
    except (ValueError, KeyError):
        size = 0.0
    if size <= 0 or precision not in plans.BYTES:
        raise BadInput(
            f"budget {item.strip()}",
            "a size and a precision of " + ", ".join(plans.BYTES),
            "write it like --budget bytes=6GB@int4",
        )
    return size, precision
