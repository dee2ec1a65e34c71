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

from dataclasses import replace

from ..plans import spans_of_kept
from ..plans.scores import BlockScores
from .base import Proposal, Request, Rule, score_reasons
from .settings import COMMON


def propose(request: Request) -> Proposal:
    """Keep the `keep` most sensitive blocks of each stack, block 0 and the protected ones always."""
    return keep_highest(request, request.block_scores(), "kept")


def keep_highest(request: Request, scores: BlockScores, kept: str) -> Proposal:
    """Keep the blocks with the highest scores; each stands for the dropped run after it.

    kept: how the reasons say it.
    """
    proposal = Proposal({})
    for stack in request.teacher.stacks:
        keep = request.keep.get(stack.path, stack.depth)
        fixed = request.fixed(stack)
        free = [block for block in range(stack.depth) if block not in fixed]
        free.sort(key=lambda block: (-scores[stack.path, block], block))
        blocks = fixed | set(free[: keep - len(fixed)])
        spans = spans_of_kept(stack.depth, blocks, stack.path)
        proposal.stacks[stack.path] = spans
        proposal.why[stack.path] = score_reasons(spans, scores, stack.path, kept)
    return proposal


RULE = Rule(
    propose,
    title="Amber-Image",
    paper="2602.17047",
    about="Drops the blocks with the least timestep-weighted sensitivity; each kept block starts "
    "as the mean of itself and the dropped run after it.",
    init="mean",
    options=(*COMMON, "timestep_weight"),
    metric="prediction",
    timestep_weight="high-noise",
)
HYBRID = replace(
    RULE,
    title="Amber-Image, hybrid streams",
    about="As Amber-Image; then the deep blocks become single-stream: text and image share the image "
    "branch's weights, which halves the block. By default a fifth of the student's blocks stays "
    "dual-stream.",
    single_from=0.2,
)
