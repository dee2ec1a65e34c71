"""ShortGPT (arXiv 2403.03853): drop the blocks that change their input least.

Block influence BI_l = 1 - E[cos(x_l, x_{l+1})], the mean over tokens of one minus the cosine
between what goes into block l and what comes out; the lowest go, the others keep their weights.
FLUX.1-lite chose its blocks by input against output too (its squared error;
huggingface.co/Freepik/flux.1-lite-8B). TinyFusion's code stores the cosine under this name and
drops the largest: here higher = keep, as everywhere. It needs one forward per prompt and timestep
where the others need one per block.
"""

from __future__ import annotations

from .amber import keep_highest
from .base import Proposal, Request, Rule
from .settings import COMMON


def propose(request: Request) -> Proposal:
    """Keep the `keep` blocks of highest influence in each stack, block 0 and the protected ones
    always.
    """
    return keep_highest(request, request.block_scores(), "changes its input most")


RULE = Rule(
    propose,
    title="Block influence (ShortGPT, FLUX.1-lite)",
    paper="2403.03853",
    about="Drops the blocks whose output is most like their input; the others keep their weights.",
    options=(*COMMON, "timestep_weight"),
    metric="influence",
    only_metric=True,
    timestep_weight="uniform",
)
