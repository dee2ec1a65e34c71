"""Names of edits, parsed once: drop, merge[:init[:gain]], single, drop:PART, modulation:rank=K,
int4, and those that are registered from outside (table.EDIT_ROWS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast, get_args

from .. import plans
from ..records import BadInput, Init, Modulation, Span, Teacher
from .table import EDITS, EditKind, EditOptions, resolved

MOST_GAIN = 1e4


@dataclass(frozen=True)
class Edit:
    """One edit. `name` as people write it; `kind` is the name of its row in EDITS."""

    name: str
    kind: str
    options: EditOptions = field(default_factory=EditOptions)

    @property
    def row(self) -> EditKind:
        return EDITS[self.kind]

    def span(self, block: int) -> Span | None:
        """The span of a plan that makes this edit of `block`; None where no single span says it
        (drop, int4)."""
        if self.row.span is None:
            return None
        span: Span = resolved(self.row.span)(self.options, block)
        return span


def parse_edits(edits: Iterable[str | Edit], teacher: Teacher) -> list[Edit]:
    """Edits by name or parsed already, each once. Raises BadInput as `parse_edit` does."""
    parsed = [edit if isinstance(edit, Edit) else parse_edit(edit, teacher) for edit in edits]
    return list(dict.fromkeys(parsed))


def parse_edit(name: str, teacher: Teacher) -> Edit:
    """`merge:first:1` -> its kind and options. Raises BadInput for a name that no row fits."""
    word, colon, text = name.partition(":")
    kind = _kind(word, text)
    if kind not in EDITS:
        raise BadInput(f"edit {name!r}", "one of " + ", ".join(EDITS), "correct --edits")
    parse = EDITS[kind].parse
    if parse is None:
        if colon:
            raise BadInput(f"edit {name!r}", f"{word} alone", "correct --edits")
        return Edit(name, kind)
    try:
        options: EditOptions = resolved(parse)(text, teacher)
    except ValueError as error:
        raise BadInput(f"edit {name!r}", str(error), "correct --edits") from None
    return Edit(name, kind, options)


def _kind(word: str, text: str) -> str:
    """The row of a name: with text behind the colon a row like drop:PART goes first."""
    if text:
        for kind in EDITS:
            if kind.startswith(f"{word}:"):
                return kind
    return word


# --- options of the built-in edits ----------------------------------------------------------------


def parse_merge(text: str, teacher: Teacher) -> EditOptions:
    """`first:1` -> init first, gain 1. Raises ValueError."""
    init, _, gain = text.partition(":")
    if init not in ("", *get_args(Init)):
        raise ValueError("merge[:init[:gain]] with an init of " + ", ".join(get_args(Init)))
    try:
        factor = float(gain or EditOptions.gain)
    except ValueError:
        factor = 0.0
    if not 0 < factor < MOST_GAIN:
        raise ValueError(f"merge[:init[:gain]] with a gain above 0 and below {MOST_GAIN:g}")
    return EditOptions(init=cast(Init, init or EditOptions.init), gain=factor)


def parse_part(text: str, teacher: Teacher) -> EditOptions:
    """`text.mlp` -> that part. Raises ValueError."""
    parts: set[str] = set()
    for row in plans.family_of(teacher).stacks:
        parts.update(row.parts)
    if text not in parts:
        raise ValueError("drop:PART with a part of " + ", ".join(sorted(parts)))
    return EditOptions(part=text)


def parse_rank(text: str, teacher: Teacher) -> EditOptions:
    """`rank=8` -> that rank. Raises ValueError."""
    name, _, number = text.partition("=")
    if name != "rank" or not re.fullmatch("[1-9][0-9]{0,5}", number):
        raise ValueError("modulation:rank=K with a whole number from 1, like modulation:rank=8")
    return EditOptions(rank=int(number))


def merge_span(options: EditOptions, block: int) -> Span:
    return Span(blocks=(block, block + 1), init=options.init, gain=options.gain)


def single_span(options: EditOptions, block: int) -> Span:
    return Span(blocks=(block, block), stream="single")


def part_span(options: EditOptions, block: int) -> Span:
    return Span(blocks=(block, block), drop=(options.part,))


def rank_span(options: EditOptions, block: int) -> Span:
    return Span(blocks=(block, block), modulation=Modulation(rank=options.rank))
