"""Metrics that score one call at a time: prediction and influence."""

from __future__ import annotations

import torch

from ..models.blocks import Block, State
from ..models.sampling import Call
from .error import check_finite, relative_change
from .results import Key, Scores
from .scan import Scan


def prediction(scan: Scan, call: Call) -> Scores:
    """||v - v_edit||^2 / ||v||^2 per sample, for every edit of every block; higher = keep.

    A share of 1: 0.07 is 7 %. Each norm is over one sample's prediction. Raises BadInput where a
    prediction is not finite (block, edit and timestep are named).
    """
    reference = scan.reference(call)
    pairs = [(edit, place) for edit in scan.edits for place in scan.places(edit)]
    scores: Scores = {Key(*place, edit.name): [] for edit, place in pairs}
    for edit, place, changed in scan.edited_predictions(reference, pairs):
        check_finite(changed, f"{edit.name} of {place[0]} block {place[1]}", call.timestep)
        change = relative_change(reference.prediction, changed)
        scores[Key(*place, edit.name)] = change.tolist()
    return scores


@torch.no_grad()
def influence(scan: Scan, call: Call) -> Scores:
    """1 - cosine of what a block takes and returns, mean over the tokens of its streams, per
    sample; higher = keep.

    ShortGPT's block influence (arXiv 2403.03853, equation 1); FLUX.1-lite used a variant. No edit
    is made: one forward. Its rows bear the edit `drop`, whose score it is meant to predict.
    """
    states = scan.reference(call).states
    scores: Scores = {}
    for place in states.order:
        turn = turned(scan.blocks[place], states.inputs[place], states.outputs[place])
        scores[Key(*place, "drop")] = turn.tolist()
    return scores


def turned(block: Block, before: State, after: State) -> torch.Tensor:
    """1 - cosine of each token's state before and after the block, mean over the tokens of the
    streams that it takes and returns: (B,)."""
    cosines = []
    for name in block.row.returns:
        if name in before and name in after:
            taken = before[name].float().flatten(1, -2)  # (B, N, D)
            returned = after[name].float().flatten(1, -2)  # (B, N, D)
            cosines.append(torch.cosine_similarity(taken, returned, dim=-1))  # (B, N)
    return 1 - torch.cat(cosines, dim=1).mean(1)
