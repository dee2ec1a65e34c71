"""Names outside diffusers, against diffusers' own conversion of them, at the published widths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils

from tests.release.full_size import STUDENTS
from workbench.families import FAMILIES
from workbench.families.original_names import ORIGINAL_NAMES
from workbench.models.layouts import config_layout
from workbench.release.single_file import joined, split

CONVERSIONS = {
    "flux": single_file_utils.convert_flux_transformer_checkpoint_to_diffusers,
    "flux2": single_file_utils.convert_flux2_transformer_checkpoint_to_diffusers,
    "zimage": single_file_utils.convert_z_image_transformer_checkpoint_to_diffusers,
    "lumina2": single_file_utils.convert_lumina2_to_diffusers,
    "auraflow": single_file_utils.convert_auraflow_transformer_checkpoint_to_diffusers,
    "wan": single_file_utils.convert_wan_transformer_to_diffusers,
}


def narrow_state(family: str) -> dict[str, torch.Tensor]:
    """Random weights of a published model with two blocks a stack and one column: conversions
    split rows, some of them at fixed widths.
    """
    [student, *_] = [each for each in STUDENTS.values() if each.family == family]
    shallow: dict[str, Any] = {row.depth_key: 2 for row in FAMILIES[family].stacks}
    student = replace(student, config={**student.config, **shallow})
    state = {}
    for name, shape in config_layout(student.whole_config, family).shapes.items():
        state[name] = torch.randn(shape[0], *[1 for _ in shape[1:]])
    return state


@pytest.mark.parametrize("family", ORIGINAL_NAMES)
def test_diffusers_conversion_and_ours_give_every_tensor_back(family: str) -> None:
    state = narrow_state(family)
    tensors = list(ORIGINAL_NAMES[family].tensors(state))
    original = {}
    back = {}
    for tensor in tensors:
        parts = [state[source] for source in tensor.sources]
        original[tensor.name] = joined(tensor, parts)
        rows = [len(part) for part in parts]
        back.update(split(tensor, original[tensor.name], rows))
    assert len(original) == len(tensors)
    converted = CONVERSIONS[family](dict(original))
    for way in (back, converted):
        assert way.keys() == state.keys()
        assert all(torch.equal(way[name], state[name]) for name in state)
