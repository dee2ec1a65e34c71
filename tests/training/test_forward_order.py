"""What runs after the first cut is told by the forward, not by the order of registration."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tiny_families import family_inputs, family_model
from workbench import models
from workbench.distillation.trainable import trained_parameters
from workbench.models import blocks_of
from workbench.records import Stage
from workbench.training.forward_order import parameters_in_order

PWP = Stage(name="x", train="after-first-cut")


class Call:
    """A recorded call, to be run as a batch is."""

    def __init__(self, arguments: dict[str, object]) -> None:
        self.arguments = arguments

    def predict(self, transformer: nn.Module) -> torch.Tensor:
        return models.prediction(transformer(**self.arguments), transformer)


HEADS = {
    "zimage": ("all_final_layer.",),
    "pixart": ("scale_shift_table", "proj_out."),
    "qwenimage": ("norm_out.", "proj_out."),
    "sd3": ("norm_out.", "proj_out."),
}


@pytest.mark.parametrize("family", HEADS)
def test_after_first_cut_trains_the_head_and_no_embedder(family: str):
    model = family_model(family)
    ((path, stack),) = list(blocks_of(model).items())[-1:]
    places = [(path, index) for index in range(1, len(stack))]
    order = parameters_in_order(model, Call(family_inputs(family)))
    names = set(trained_parameters(model, PWP, places, order))
    outside = {name for name in names if not name.startswith(f"{path}.")}
    assert outside and all(name.startswith(HEADS[family]) for name in outside)
    assert all(any(name.startswith(head) for name in outside) for head in HEADS[family])
    inside = {name for name in names if name.startswith(f"{path}.")}
    assert {name.split(".")[1] for name in inside} == {str(index) for _, index in places}


def test_a_cut_behind_the_last_block_leaves_the_head():
    model = family_model("qwenimage")
    order = parameters_in_order(model, Call(family_inputs("qwenimage")))
    names = trained_parameters(model, PWP, [], order)
    assert {name.split(".")[0] for name in names} == {"norm_out", "proj_out"}
