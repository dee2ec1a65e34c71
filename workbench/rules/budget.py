"""Budgets: how small a student must be, in blocks, parameters, bytes at a precision, or predicted
time per step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..plans import BYTES, Tokens, parameters, predicted_latency
from ..records import BadInput, Plan, Teacher

UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-zA-Z]*)\s*(?:@\s*(\w+))?\s*")  # 6GB@int4
LIMITS = "params=SHARE, bytes=SIZE@PRECISION or latency=SHARE"


@dataclass(frozen=True)
class Budget:
    """All that is set must hold. None: no limit of that kind.

    keep: stack -> student blocks at most. params: share of the teacher's parameters. bytes: of the
    transformer's weights at `precision`, without scales. latency: share of the teacher's predicted
    time per step. tokens: sequence lengths for it; None: those at which the teacher is sampled.
    """

    keep: Mapping[str, int] | None = None
    params: float | None = None
    bytes: float | None = None
    precision: str = "bf16"
    latency: float | None = None
    tokens: Tokens | None = None

    @classmethod
    def parse(
        cls,
        text: str | float | None,
        keep: Mapping[str, int] | None = None,
        tokens: Tokens | None = None,
    ) -> Budget:
        """`params=0.5`, `bytes=6GB@int4`, `latency=0.5`, several with commas; a bare number is a
        share of the parameters. Raises BadInput.
        """
        budget = cls(keep=keep, tokens=tokens)
        if text is None:
            return budget
        if isinstance(text, int | float) and not isinstance(text, bool):
            text = f"params={text}"
        for item in str(text).split(","):
            name, _, value = item.strip().partition("=")
            if name == "params":
                budget = replace(budget, params=_share(value, item))
            elif name == "latency":
                budget = replace(budget, latency=_share(value, item))
            elif name == "bytes":
                size, precision = _size(value, item)
                budget = replace(budget, bytes=size, precision=precision)
            else:
                raise BadInput(
                    f"budget {item.strip()!r}", LIMITS, "write it like --budget params=0.5"
                )
        return budget

    @property
    def counts_blocks_alone(self) -> bool:
        """Whether nothing but the number of blocks is limited."""
        return self.params is None and self.bytes is None and self.latency is None

    @property
    def empty(self) -> bool:
        """Whether nothing is limited."""
        return self.keep is None and self.counts_blocks_alone

    def of_blocks_alone(self) -> Budget:
        """The limit on the number of blocks, without the others."""
        return Budget(keep=self.keep, tokens=self.tokens)

    def excess(self, plan: Plan, teacher: Teacher) -> float:
        """How far the plan is over the budget, as a share of the teacher (blocks, parameters or
        work); 0 where it is met.
        """
        over = 0.0
        if self.keep is not None:
            blocks = 0
            for path, spans in plan.stacks.items():
                blocks += max(0, len(spans) - self.keep.get(path, len(spans)))
            over += blocks / sum(stack.depth for stack in teacher.stacks)
        if self.params is not None or self.bytes is not None:
            more = parameters(plan, teacher) - self._parameters(teacher)
            over += max(0.0, more) / teacher.parameters
        if self.latency is not None:
            over += max(0.0, predicted_latency(plan, teacher, self.tokens) - self.latency)
        return over

    def _parameters(self, teacher: Teacher) -> float:
        """How many parameters the student may have."""
        limits = []
        if self.params is not None:
            limits.append(self.params * teacher.parameters)
        if self.bytes is not None:
            limits.append(self.bytes / BYTES[self.precision])
        return min(limits)

    def __str__(self) -> str:
        """The limits beside the number of blocks, as a person writes them."""
        parts = []
        if self.params is not None:
            parts.append(f"params={self.params:g}")
        if self.bytes is not None:
            parts.append(f"bytes={self.bytes:.10g}@{self.precision}")
        if self.latency is not None:
            parts.append(f"latency={self.latency:g}")
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


def _size(value: str, item: str) -> tuple[float, str]:
    """6GB@int4 -> (6e9, int4)."""
    size = 0.0
    precision = "bf16"
    match = SIZE.fullmatch(value)
    if match is not None:
        precision = match[3] or "bf16"
        try:
            size = float(match[1]) * UNITS[match[2].lower()]
        except (ValueError, KeyError):
            size = 0.0
    if size <= 0 or precision not in BYTES:
        raise BadInput(
            f"budget {item.strip()}",
            "a size and a precision of " + ", ".join(BYTES),
            "write it like --budget bytes=6GB@int4",
        )
    return size, precision
