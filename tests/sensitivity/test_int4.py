"""Four bits: against a loop over the definition, against gguf-py where it is at hand, and as an
edit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import tiny_inputs, tiny_transformer
from workbench import models
from workbench.models import Call
from workbench.sensitivity.error import relative_change
from workbench.sensitivity.profiling import profile
from workbench.students import int4


def by_hand(weight: torch.Tensor) -> torch.Tensor:
    """Q4_0 one group at a time, as ggml's quantize_row_q4_0_ref and dequantize_row_q4_0 write it."""
    out = []
    for group in weight.reshape(-1, 32).tolist():
        extreme = max(group, key=abs)
        scale = float(np.float32(extreme) / np.float32(-8))
        inverse = float(np.float32(1) / np.float32(scale)) if scale else 0.0
        codes = [min(15, int(value * inverse + 8.5)) for value in group]
        out += [(code - 8) * float(np.float32(np.float16(scale))) for code in codes]
    return torch.tensor(out).reshape(weight.shape)


@pytest.mark.parametrize("kind", ["normal", "zero", "one outlier", "large"])
def test_q4_0_is_what_its_reference_code_does(kind: str) -> None:
    weight = torch.randn(16, 96, generator=torch.Generator().manual_seed(1))
    if kind == "zero":
        weight[3] = 0
    if kind == "one outlier":
        weight[2, 40] = -50
    if kind == "large":
        weight *= 1000
    assert torch.equal(int4.int4(weight), by_hand(weight))


def test_q4_0_is_what_gguf_reads_back() -> None:
    gguf = pytest.importorskip("gguf")
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    packed = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q4_0)
    assert torch.equal(
        int4.int4(weight),
        torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0)),
    )


def test_rounding_again_changes_nothing_and_the_error_is_that_of_four_bits() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(3))
    once = int4.int4(weight)
    steps = weight.reshape(-1, 32).abs().amax(1, keepdim=True) / 8
    # half a step, a whole one at the open end
    assert ((once - weight).reshape(-1, 32).abs() <= steps * 1.01).all()
    assert 0.05 < ((once - weight).norm() / weight.norm()).item() < 0.12
    assert int4.int4(weight.bfloat16()).dtype == torch.bfloat16


def test_only_linears_of_whole_groups_change() -> None:
    block = nn.ModuleDict(
        {
            "wide": nn.Linear(64, 8),
            "odd": nn.Linear(20, 8),
            "norm": nn.LayerNorm(32),
            "conv": nn.Conv1d(32, 32, 1),
        }
    )
    before, after = block.state_dict(), int4.int4_state(block)
    assert (
        [name for name in before if not torch.equal(before[name], after[name])]
        == ["wide.weight"]
        == int4.quantized(block)
    )


def test_the_edit_is_the_model_with_those_weights() -> None:
    model = tiny_transformer(depth=3)
    teacher = models.describe_module(model)
    call = Call(tiny_inputs(), 500.0, 0, 2, "cond")
    rows = list(profile(model, teacher, [call], edits=["int4", "drop"]))[-1].result.rows
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        reference = models.prediction(model(**call.kwargs))
        model.transformer_blocks[1].load_state_dict(int4.int4_state(model.transformer_blocks[1]))
        changed = models.prediction(model(**call.kwargs))
    score = next(row.score for row in rows if row.block == 1 and row.edit == "int4")
    assert score == pytest.approx(relative_change(reference, changed).mean().item(), rel=1e-5)
    assert [row.block for row in rows if row.edit == "int4"] == [0, 1, 2]
    assert 0 < score < next(row.score for row in rows if row.block == 1 and row.edit == "drop")
    model.load_state_dict(before)
