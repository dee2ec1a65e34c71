"""How each family's transformer is called in training: one row a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..records import BadInput


@dataclass(frozen=True)
class Inputs:
    """The transformer's arguments, by what they hold. Every pipeline of the table hands them over
    by name.
    """

    latents: str = "hidden_states"
    timestep: str = "timestep"
    text: tuple[str, ...] = ("encoder_hidden_states",)  # (T, D) a sample, padded to the longest
    pooled: tuple[str, ...] = ()  # (D,) a sample
    mask: str | None = None  # (B, T), true at real text tokens
    shapes: str | None = None  # a list of grids of image tokens, one list a sample
    shared: tuple[str, ...] = ()  # position ids, the same for all samples of one size
    expand: bool = False  # shared ones have a leading batch dimension
    guidance: str | None = None  # where a guidance scale goes, if the model embeds one
    constant: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0  # the timestep argument at pure noise
    reverse: bool = False  # the timestep argument is 1 - s, and the answer x0 - noise
    listed: bool = False  # lists of samples (C, 1, H, W) and (T, D) in place of batches
    ddpm: bool = False  # predicts the noise of a DDPM, not a velocity
    # the pipeline brings guided predictions to the length of the conditional ones, token by token
    rescale: bool = False


IDS = ("img_ids", "txt_ids")
INPUTS: dict[str, Inputs] = {
    "qwenimage": Inputs(mask="encoder_hidden_states_mask", shapes="img_shapes", rescale=True),
    "flux": Inputs(pooled=("pooled_projections",), shared=IDS, guidance="guidance"),
    "flux2": Inputs(shared=IDS, expand=True, guidance="guidance"),
    "sd3": Inputs(pooled=("pooled_projections",), scale=1000.0),
    "zimage": Inputs(latents="x", timestep="t", text=("cap_feats",), reverse=True, listed=True),
    "pixart": Inputs(
        mask="encoder_attention_mask",
        ddpm=True,
        scale=999.0,
        constant={"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
    ),
}


def inputs_of(family: str) -> Inputs:
    if family not in INPUTS:
        raise BadInput(
            f"family {family} has no row in training.inputs.INPUTS",
            "one of " + ", ".join(INPUTS),
            "add how its transformer is called",
        )
    return INPUTS[family]
