"""Even spans: the baseline every paper compares with. Ours, no paper.

On a grown teacher it beats "drop the least sensitive", because long spans break (docs/log.md).
"""

from __future__ import annotations

from ..plans import spans_of
from ..records import StackInfo
from .base import Proposal, Request, Rule


def propose(request: Request) -> Proposal:
    """Cut each stack into `keep` spans whose lengths differ by at most one; the longer ones come
    last.
    """
    stacks = {s.path: spans_of(s.depth, starts(request, s)) for s in request.teacher.stacks}
    return Proposal(stacks, {path: ["even spans"] * len(spans) for path, spans in stacks.items()})


def starts(request: Request, stack: StackInfo) -> list[int]:
    """First blocks of the spans: the fixed ones, then those nearest to an even grid."""
    keep = request.keep.get(stack.path, stack.depth)
    even = [stack.depth * number // keep for number in range(keep)]
    if not request.protect.get(stack.path):
        return even
    fixed = request.fixed(stack)
    free = [block for block in range(stack.depth) if block not in fixed]
    free.sort(key=lambda block: min(abs(block - start) for start in even))
    return sorted(fixed | set(free[: keep - len(fixed)]))


RULE = Rule(
    propose,
    title="Even spans",
    about="Cuts every stack into spans of equal length; each student block starts as the first of "
    "its span.",
)
