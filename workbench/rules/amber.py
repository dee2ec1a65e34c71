"""Amber-Image (arXiv 2602.17047): drop the blocks of least timestep-weighted sensitivity, average
locally.

I_l = mean over prompts of (sum over t of w_t ||delta_l||^2 / sum over t of w_t), delta_l = change
of the network's final prediction when block l is bypassed; w_t rises with noise (default
`high-noise`: w_t = t/1000; the paper's values are not public). The lowest I_l go. Kept block l with
its k dropped followers starts as mean(W_l .. W_{l+k}). The paper does not say what becomes of a run
dropped at block 0: here block 0 is kept (decision 0003).

`amber-hybrid` is the paper's second step on top: deep student blocks carry text and image with the
image branch's weights. A walkthrough says 10 of 30 blocks stay dual; the published 6 B, -70 % is
met by 6 of 30, a fifth, which is the default.
"""

from __future__ import annotations

from ..plans import spans_of_kept
from .base import Proposal, Request, Scores, told

DUAL_SHARE = 0.2  # of the student's blocks stay dual-stream in amber-hybrid


def propose(request: Request) -> Proposal:
    """Keep the `keep` most sensitive blocks of each stack, block 0 and the protected ones always."""
    return keep_highest(request, request.block_scores(), "kept")


def keep_highest(request: Request, scores: Scores, word: str) -> Proposal:
    """Keep the blocks with the highest scores; each stands for the dropped run behind it."""
    found = Proposal({})
    for stack in request.teacher.stacks:
        keep = request.keep.get(stack.path, stack.depth)
        fixed = request.fixed(stack)
        order = sorted(set(range(stack.depth)) - fixed, key=lambda b: (-scores[stack.path, b], b))
        spans = spans_of_kept(stack.depth, fixed | set(order[: keep - len(fixed)]), stack.path)
        found.stacks[stack.path], found.why[stack.path] = (
            spans,
            told(spans, scores, stack.path, word),
        )
    return found
