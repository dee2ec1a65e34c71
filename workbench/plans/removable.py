"""Which parts a student block could do without."""

from __future__ import annotations

from ..families import StackRow
from ..records import Span, StackInfo


def removable_parts(span: Span, stack: StackInfo, row: StackRow) -> tuple[str, ...]:
    """Parts that this student block could do without: those its layout has, in its stream; what
    only the last block has in the last one.
    """
    names = []
    for name, part in row.fitted(stack.tensors(span.source[0])).parts.items():
        in_place = not part.last_only or span.last == stack.depth - 1
        in_stream = span.stream != "single" or not name.startswith("text.")
        if in_place and in_stream:
            names.append(name)
    return tuple(names)
