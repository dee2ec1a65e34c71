"""The metrics: what their numbers are and which way they point. A new one is a row here and a
function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from ..models import Call
from ..models.blocks import Block, State
from .scan import Scan, Scores

KEEP = "higher = keep"


@dataclass(frozen=True)
class Metric:
    """One metric. `call` scores one call of the transformer, sample by sample; the others need all
    calls, or pictures.
    """

    unit: str
    direction: str
    about: str
    needs: Literal["calls", "states", "pictures", "training"] = "calls"
    call: Callable[[Scan, Call], tuple[Scores, int]] | None = None
    edits: tuple[str, ...] = ()  # the edit its rows bear where it makes none of its own choice


@torch.no_grad()
def influence(scan: Scan, call: Call) -> tuple[Scores, int]:
    """1 - cosine of what a block takes and returns, mean over all tokens of its streams; one score
    a sample.

    ShortGPT's block influence (arXiv 2403.03853, equation 1), which FLUX.1-lite used in kin. It
    needs no ablation: one forward. Rows bear the edit `drop`, of which it is a guess.
    """
    scan.evaluations = 0
    _, _, held = scan.reference(call)
    scores = {
        f"{place[0]} {place[1]} drop": turned(
            scan.blocks[place], held.inputs[place], held.outputs[place]
        ).tolist()
        for place in held.order
    }
    return scores, scan.evaluations


def turned(block: Block, before: State, after: State) -> torch.Tensor:
    """1 - cosine of each token's state before and after, mean over tokens of the streams that go in
    and out: (B,).
    """
    pairs = [
        (before[name], after[name])
        for name in block.row.returns
        if name in before and name in after
    ]
    # (B, N)
    cosines = [
        torch.cosine_similarity(a.float().flatten(1, -2), b.float().flatten(1, -2), dim=-1)
        for a, b in pairs
    ]
    return 1 - torch.cat(cosines, dim=1).mean(1)


METRICS: dict[str, Metric] = {
    "prediction": Metric(
        "relative squared change of the prediction",
        KEEP,
        "How much the model's prediction changes when the edit is made, at each "
        "timestep of its own trajectory.",
        call=Scan.call,
    ),
    "influence": Metric(
        "1 - cosine of the block's input and output",
        KEEP,
        "How far the block turns the state that passes through it (ShortGPT). One "
        "forward, no edit is made.",
        call=influence,
        edits=("drop",),
    ),
    "cka": Metric(
        "CKA of the span's output and that of linear probes in its place, 0 to 1",
        "higher = the span can be replaced",
        "How well linear probes in place of the blocks of a span give what the span gave (PPCL).",
        needs="states",
        edits=("span",),
    ),
    "recovery": Metric(
        "relative squared change of the prediction",
        KEEP,
        "How much the prediction changes when one block stands for a span: as it "
        "starts, and after a short training.",
        needs="training",
        edits=("zero-shot", "recovered"),
    ),
    "image": Metric(
        "loss of the scorer's value",
        KEEP,
        "How much finished pictures lose when the edit is made, by a scorer (HierarchicalPrune).",
        needs="pictures",
    ),
}
