"""Amber-Image (arXiv 2602.17047): drop the blocks of least timestep-weighted sensitivity, average locally.

I_l = mean over prompts of (sum over t of w_t ||delta_l||^2 / sum over t of w_t), delta_l = change of the network's final
prediction when block l is bypassed; w_t rises with noise (default `high-noise`: w_t = t/1000; the paper's values are
not public). The lowest I_l go. Kept block l with its k dropped followers starts as mean(W_l .. W_{l+k}).
The paper does not say what becomes of a run dropped at block 0: here block 0 is kept (decision 0003).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..plans import spans_of_kept
from ..records import BadInput

if TYPE_CHECKING:
    from . import Request, Spans


def propose(request: Request) -> Spans:
    """Keep the `keep` most sensitive blocks of each stack, block 0 and the protected ones always."""
    scores = request.scores("drop")
    out = {}
    for stack in request.teacher.stacks:
        keep = request.keep.get(stack.path, stack.depth)
        fixed = request.fixed(stack)
        missing = [b for b in range(stack.depth) if (stack.path, b) not in scores]
        if missing and keep < stack.depth:
            raise BadInput(f"the map has no drop score for {stack.path} block {missing[0]}", "a score for every block", "profile again")
        ranked = sorted(set(range(stack.depth)) - fixed, key=lambda b: (-scores.get((stack.path, b), 0.0), b))
        out[stack.path] = spans_of_kept(stack.depth, fixed | set(ranked[: keep - len(fixed)]), stack.path)
    return out
