"""The setting `longest` of the greedy rule: no span of more blocks unless the size asks for it."""

from __future__ import annotations

from .base import Request, Spans
from .edits import Edit

Savings = list[tuple[Edit, float]]


def within_longest(request: Request, stacks: Spans, savings: Savings, longest: int) -> Savings:
    """The edits without joins of more than `longest` blocks, and without joins after which the
    number of blocks to keep is out of reach of such spans.

    Where it is out of reach anyway, or nothing else is left to join, spans may be longer, by as
    little as possible.
    """
    limit = shortest_limit(request, stacks, savings, longest)
    short = [pair for pair in savings if not pair[0].joins or len(pair[0].span) <= limit]
    reaching = [
        (edit, saving)
        for edit, saving in short
        if not edit.joins or reachable(request, edit.apply(stacks), limit)
    ]
    return reaching if reaching else short


def shortest_limit(request: Request, stacks: Spans, savings: Savings, longest: int) -> int:
    """The least length of spans, from `longest` on, with which the blocks to keep are reached."""
    lengths = [len(edit.span) for edit, _ in savings if edit.joins]
    deepest = max(stack.depth for stack in request.teacher.stacks)
    limit = max(longest, min(lengths, default=0))
    while limit < deepest and not reachable(request, stacks, limit):
        limit += 1
    return limit


def reachable(request: Request, stacks: Spans, longest: int) -> bool:
    """Whether joins of up to `longest` blocks come down to the number of blocks to keep."""
    keep = request.budget.keep or {}
    for stack in request.teacher.stacks:
        count = packed(request, stacks, stack.path, longest)
        if count > keep.get(stack.path, count):
            return False
    return True


def packed(request: Request, stacks: Spans, path: str, longest: int) -> int:
    """How many spans are left of a stack when neighbours are joined, from the first span on, up to
    `longest` blocks each.
    """
    walls = request.walls(request.teacher.stack(path))
    count = 0
    length = longest + 1  # of the span being filled: the first span begins a new one
    for span in stacks[path]:
        if length + len(span) <= longest and span.first not in walls:
            length += len(span)
        else:
            count += 1
            length = len(span)
    return count
