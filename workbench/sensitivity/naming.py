"""Names of edits: `drop`, `merge[:init[:gain]]`, `single`, `drop:<part>`, `int4`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

from .. import plans
from ..records import BadInput, Init, Span, Teacher


@dataclass(frozen=True)
class Edit:
    """A parsed edit name."""

    name: str
    kind: str  # drop | merge | single | part | int4
    part: str = ""
    init: Init = "mean"
    gain: float = 2.0

    def span(self, block: int) -> Span:
        """The span of a plan that makes this edit of `block`; not for drop and int4, which no
        single span says.
        """
        if self.kind == "merge":
            return Span(blocks=(block, block + 1), init=self.init, gain=self.gain)
        if self.kind == "single":
            return Span(blocks=(block, block), stream="single")
        return Span(blocks=(block, block), drop=(self.part,))


def parse_edit(name: str, teacher: Teacher) -> Edit:
    """`drop`, `merge`, `merge:first`, `merge:mean:1`, `single`, `drop:text.mlp`, `int4`. Raises
    BadInput for anything else.
    """
    kind, _, rest = name.partition(":")
    parts = sorted({part for row in plans.family_of(teacher).stacks for part in row.parts})
    if kind == "drop" and (not rest or rest in parts):
        return Edit(name, "part" if rest else "drop", rest)
    if name in ("int4", "single"):
        return Edit(name, name)
    init, _, gain = rest.partition(":")
    if kind == "merge" and init in ("", *get_args(Init)):
        try:
            factor = float(gain or 2)
        except ValueError:
            factor = 0.0
        if 0 < factor < 1e4:
            return Edit(name, "merge", init=cast(Init, init or "mean"), gain=factor)
    raise BadInput(
        f"edit {name!r}",
        f"drop, merge[:init[:gain]], single, int4 or drop:<part> with a part of {', '.join(parts)}",
        "correct --edits",
    )
