"""A LoRA of a teacher moved to its student: what a plan does to a block's weights, it does to the
change that the LoRA makes to them.

A student's block is the mean of teacher blocks, so its change is the mean of their changes: pairs
of several blocks are stacked to one of the sum of their ranks. Gains, cut rows and the two factors
of modulation are applied as `students.weights_from_span` applies them to the weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..families import FAMILIES, StackRow, inside
from ..models.layouts import block_shapes
from ..models.lora_files import Lora, Pair
from ..records import Plan, Span
from ..students.modulation_fit import Basis, factored_lora
from ..students.weights_from_span import cut, folded

Shapes = Mapping[str, list[int]]


@dataclass
class Account:
    """What became of every pair. kept: as it was; merged: averaged with those of other blocks;
    projected: onto the factors of the student's modulation; dropped: reason -> how many.

    squares, lost: squared norms of all changes, and of those that were dropped. left_out: of the
    changes of modulation, the share of their effect over the conditioning vectors that the factors
    cannot hold, 0 to 1; None where none was projected.
    """

    pairs: int = 0
    kept: int = 0
    merged: int = 0
    projected: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    squares: float = 0.0
    lost: float = 0.0
    effects: list[tuple[float, float]] = field(default_factory=list)  # left out, whole

    @property
    def lost_share(self) -> float:
        return self.lost / self.squares if self.squares else 0.0

    @property
    def left_out(self) -> float | None:
        whole = sum(each for _, each in self.effects)
        return sum(each for each, _ in self.effects) / whole if whole else None

    def drop(self, reason: str, pair: Pair) -> None:
        self.dropped[reason] += 1
        self.lost += pair.square

    def line(self) -> str:
        """All pairs in one line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        dropped = f"{sum(self.dropped.values())} dropped" + (f" ({reasons})" if reasons else "")
        return (
            f"{self.pairs} pairs: {self.kept} kept, {self.merged} averaged with those of merged "
            f"blocks, {self.projected} projected onto factored modulation, {dropped}"
        )


@dataclass(frozen=True)
class Move:
    """A teacher's LoRA and where it goes. shapes: of the teacher's tensors, in its stock class.
    basis: of the conditioning vectors, where the student's modulation is in two factors.
    """

    lora: Lora
    plan: Plan
    shapes: Shapes
    basis: Basis | None = None


def moved(order: Move) -> tuple[Lora, Account]:
    """The LoRA of the student, and what became of every pair."""
    account = Account(pairs=len(order.lora.pairs))
    account.squares = sum(pair.square for pair in order.lora.pairs.values())
    out = Lora(others=order.lora.others, dtype=order.lora.dtype)
    family = FAMILIES[order.plan.family]
    stacks = tuple(f"{row.path}." for row in family.stacks)
    for module, pair in order.lora.pairs.items():
        if not module.startswith(stacks):
            out.pairs[module] = pair
            account.kept += 1
    for row in family.stacks:
        by_block = pairs_by_block(order.lora.pairs, row.path)
        layouts = block_shapes(dict(order.shapes), row.path)
        for number, span in enumerate(order.plan.stacks[row.path]):
            block = BlockMove(row, row.fitted(layouts[span.source[0]]), span, order.basis)
            for rest, pair in block.moved(by_block, account).items():
                out.pairs[f"{row.path}.{number}.{rest}"] = pair
    return out, account


def pairs_by_block(pairs: Mapping[str, Pair], path: str) -> dict[int, dict[str, Pair]]:
    """Block of a stack -> module inside -> its pair."""
    found: dict[int, dict[str, Pair]] = {}
    for module, pair in pairs.items():
        if module.startswith(f"{path}."):
            number, _, rest = module.removeprefix(f"{path}.").partition(".")
            found.setdefault(int(number), {})[rest] = pair
    return found


@dataclass(frozen=True)
class BlockMove:
    """One block of the student. row: of its stack; fitted: the same, to the teacher's blocks."""

    row: StackRow
    fitted: StackRow
    span: Span
    basis: Basis | None

    def moved(
        self, by_block: Mapping[int, Mapping[str, Pair]], account: Account
    ) -> dict[str, Pair]:
        """Module inside the student's block -> its pair."""
        span = self.span
        for block in range(span.first, span.last + 1):
            if block not in span.source:
                for pair in by_block.get(block, {}).values():
                    account.drop("of blocks that the student does not have", pair)
        sources: dict[str, list[Pair]] = {}
        for block in span.source:
            for rest, pair in by_block.get(block, {}).items():
                sources.setdefault(rest, []).append(pair)
        out = {}
        for rest, pairs in sources.items():
            reason = self.reason_to_drop(rest)
            if reason:
                for pair in pairs:
                    account.drop(reason, pair)
                continue
            name, moved = self.one(rest, stacked(pairs, len(span.source)), account)
            out[name] = moved
            if name != rest:
                account.projected += len(pairs)
            elif len(span.source) > 1:
                account.merged += len(pairs)
            else:
                account.kept += len(pairs)
        return out

    @property
    def is_single(self) -> bool:
        return self.span.stream == "single" and self.row.kind == "dual"

    def reason_to_drop(self, rest: str) -> str:
        """Why the student's block has no such linear; empty where it has."""
        if self.is_single and inside(rest, self.row.text):
            return "of text streams whose weights are the image's now"
        for name in self.span.drop:
            part = self.target.parts.get(name)
            if part is not None and inside(rest, part.modules):
                return "of parts that the student does not have"
        return ""

    @property
    def target(self) -> StackRow:
        """The row of the student's block."""
        return self.fitted.single if self.is_single else self.fitted

    def one(self, rest: str, pair: Pair, account: Account) -> tuple[str, Pair]:
        """The module in the student and its pair, after factors, gain and cut rows."""
        a, b, offset = pair.a, pair.b, None
        if self.span.rank is not None and rest in self.row.modulation:
            assert self.basis is not None
            account.effects.append(effect(pair, self.basis, self.span.rank))
            a, b, offset = factored_lora(a, b, self.basis, self.span.rank)
            rest = f"{rest}.up"
            offset = folded(f"{rest}.bias", offset, self.span.gain, self.target)
        name = f"{rest}.weight"
        b = folded(name, b, self.span.gain, self.target)
        parts = [self.target.parts[part] for part in self.span.drop if part in self.target.parts]
        rows = [rows for part in parts for rows in part.rows]
        b = cut(name, b, [each for each in rows if each.dim == 0])
        a = cut(name, a, [each for each in rows if each.dim == 1])
        return rest, Pair(a, b, offset)


def stacked(pairs: list[Pair], count: int) -> Pair:
    """The pair of the mean of `count` weights of which these were changed."""
    if count == 1:
        return pairs[0]
    a = torch.cat([pair.a for pair in pairs])
    b = torch.cat([pair.b for pair in pairs], 1)
    return Pair(a, b / count)


def effect(pair: Pair, basis: Basis, rank: int) -> tuple[float, float]:
    """Mean squares of what the change adds to the modulation over the conditioning vectors: the
    part that the factors leave out, and all of it.
    """
    vectors = basis.vectors.double()
    change = pair.b.double() @ pair.a.double()
    shares = basis.shares[:, None]
    left = basis.left_out(vectors, rank) @ change.T
    whole = vectors @ change.T
    return float((shares * left.square()).sum()), float((shares * whole.square()).sum())
