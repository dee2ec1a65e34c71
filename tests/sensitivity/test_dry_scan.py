"""A scan on a model without memory takes what the same scan takes for real."""

from __future__ import annotations

import pytest
import torch

from tests.distillation.test_dry_run import CONFIG, TOKENS, held_by_the_allocator
from workbench import models, students
from workbench.distillation.made_up_source import made_up_source
from workbench.families import FAMILIES
from workbench.models import Call
from workbench.models.memory_use import MemoryUse
from workbench.records import Teacher
from workbench.sensitivity.edits import parse_edits
from workbench.sensitivity.scan import Scan
from workbench.tasks.profile_estimate import MIDDLE, dry_scan, scan_use

EDITS = ("drop", "merge")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    made = students.stock_class(FAMILIES["qwenimage"]).from_config(CONFIG).eval()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.05)
    return made


@pytest.fixture(scope="module")
def teacher(model: torch.nn.Module) -> Teacher:
    return models.describe_module(model)


def test_it_holds_what_the_allocator_then_holds(model: torch.nn.Module, teacher: Teacher):
    batch = made_up_source("qwenimage", models.config_of(model), TOKENS).batch(0, 3, 0)
    call = Call(batch.arguments(), MIDDLE, 0, 3, "cond")
    edits = parse_edits(EDITS, teacher)
    took = held_by_the_allocator(lambda: scan_use(model, edits, call, MemoryUse()))  # not counting
    said = dry_scan(teacher, EDITS, TOKENS, 3, on_gpu=False)
    rotations = model.pos_embed  # tables that are copied to the device: here they are there
    copied = rotations.pos_freqs.nbytes + rotations.neg_freqs.nbytes
    assert said.bytes - said.kinds["teacher"] - copied == pytest.approx(took, rel=0.1)


@pytest.mark.parametrize("streamed", [False, True])
def test_operations_are_those_of_the_blocks_that_a_scan_runs(
    model: torch.nn.Module, teacher: Teacher, streamed: bool
):
    said = dry_scan(teacher, EDITS, TOKENS, 1, streamed=streamed)
    scan = Scan(model, parse_edits(EDITS, teacher))
    depth = len(scan.blocks)
    blocks = (scan.expected_evaluations - depth) / depth
    assert said.edits_flops == pytest.approx(blocks * said.forward_flops, rel=0.1)


def test_streamed_and_packed_blocks_take_less_and_are_seen_in_every_thread(teacher: Teacher):
    whole = dry_scan(teacher, EDITS, TOKENS, 1)
    for held in ({"streamed": True}, {"weights": "nf4"}):
        use = dry_scan(teacher, EDITS, TOKENS, 1, **held)  # type: ignore[arg-type]
        assert use.edits_flops == pytest.approx(whole.edits_flops, rel=0.01)
    deep = teacher.model_copy(update={"config": {**teacher.config, "num_layers": 12}})
    assert (
        dry_scan(deep, EDITS, TOKENS, 1, streamed=True).kinds["teacher"]
        < 0.6 * dry_scan(deep, EDITS, TOKENS, 1).kinds["teacher"]
    )
