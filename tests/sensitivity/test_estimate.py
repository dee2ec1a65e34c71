"""What a scan will take: counted by hand, by torch's own FLOP counter, and by the scan itself."""

from __future__ import annotations

import diffusers
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scan_cost import on_paper
from tests.tiny_families import family_inputs, family_model
from workbench import models, plans
from workbench.models import Call
from workbench.models.blocks import all_blocks, forwards
from workbench.sensitivity.edits import parse_edit
from workbench.sensitivity.estimate import estimate
from workbench.sensitivity.metrics import prediction
from workbench.sensitivity.scan import Scan

TOKENS = plans.Tokens(image=6, text=5)


def test_the_arithmetic_is_what_torch_counts() -> None:
    """FLOPs of the blocks of a tiny Qwen-Image forward, and the scan's block forwards."""
    model = family_model("qwenimage")
    teacher = models.describe_module(model)
    found = on_paper(
        teacher,
        ["drop", "merge", "int4"],
        tokens=TOKENS,
        width=32,
        samples=4,
        timesteps=3,
        batch=2,
        flops=1e12,
    )
    counted = []

    def counting(old):  # type: ignore[no-untyped-def]
        def new(*args, **kwargs):  # type: ignore[no-untyped-def]
            with FlopCounterMode(display=False) as counter:
                output = old(*args, **kwargs)
            counted.append(counter.get_total_flops())
            return output

        return new

    call = Call(family_inputs("qwenimage"), 500.0, 0, 2, "cond")
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        forwards([(block.module, counting) for block in all_blocks(model)]),
    ):
        model(**call.kwargs)
    # two samples
    assert found["block_flops"] == pytest.approx(sum(counted) / len(counted) / 2, rel=1e-6)
    scan = Scan(model, [parse_edit(edit, teacher) for edit in ("drop", "merge", "int4")])
    before = scan.evaluations
    prediction(scan, call)
    assert scan.evaluations - before == scan.expected_evaluations
    assert found["block_evaluations"] == 6 * scan.expected_evaluations
    assert found["naive_block_evaluations"] == 6 * scan.naive_evaluations


def test_the_estimate_counts_weights_states_and_edited_blocks() -> None:
    model = family_model("qwenimage")
    teacher = models.describe_module(model)
    scan = Scan(model, [parse_edit(edit, teacher) for edit in ("drop", "int4")])
    found = estimate(scan, Call(family_inputs("qwenimage"), 500.0, 0, 2, "cond"), 10, sampling=8)
    assert found.weights_bytes == 4 * teacher.parameters
    # float32, blocks, samples, tokens, width
    assert found.states_bytes == 4 * 4 * 2 * (6 + 5) * 32
    assert found.edited_bytes == 4 * 4 * teacher.stacks[0].block_parameters(0)
    assert found.memory_bytes == found.weights_bytes + found.states_bytes + found.edited_bytes
    assert found.block_evaluations == 10 * scan.expected_evaluations
    assert found.seconds == pytest.approx(found.forward_seconds * (found.block_evaluations / 4 + 8))


def test_qwen_image_on_paper() -> None:
    """The figures of docs/sensitivity.md, from the dimensions by hand."""
    with torch.device("meta"):
        teacher = models.describe_module(diffusers.QwenImageTransformer2DModel())
    how = {
        "tokens": plans.Tokens(4096, 256),
        "width": 3072,
        "samples": 20,
        "timesteps": 8,
        "batch": 4,
    }
    found = on_paper(teacher, ["drop"], flops=150e12, **how)
    assert found["block_flops"] == pytest.approx(
        2 * 12 * 3072**2 * 4352 + 2 * 12 * 3072**2 * 2 + 4 * 4352**2 * 3072, rel=1e-3
    )
    assert found["states_bytes"] == 60 * 4352 * 3072 * 2 * 4
    assert found["block_evaluations"] == 40 * (60 + 60 * 59 // 2)
    slow = on_paper(teacher, ["drop"], flops=1e18, bandwidth=20e9, **how)
    assert slow["seconds_per_block"] == pytest.approx(2 * 339_831_296 / 20e9), (
        "the bus is what waits"
    )
    assert slow["memory_bytes"] < 10e9 < 47e9 < found["memory_bytes"]
