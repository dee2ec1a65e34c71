"""Sensitivity of a hybrid student: an edit that does not apply to a block has no row."""

from __future__ import annotations

from tests.sensitivity.test_scan import random_calls, result
from tests.students.conftest import HYBRID
from tests.tiny import tiny_transformer
from workbench import models, surgery
from workbench.sensitivity.profiling import profile


def test_edits_of_a_hybrid_student() -> None:
    """Blocks: dual, single (merged), single, dual without text.mlp, dual without text.output."""
    student = surgery.student_transformer(tiny_transformer(), HYBRID)
    edits = ("drop", "merge", "single", "drop:text.mlp", "drop:mlp")
    done = result(profile(student, models.describe_module(student), random_calls(), edits=edits))
    rows = {edit: sorted({row.block for row in done.rows if row.edit == edit}) for edit in edits}
    assert rows["drop"] == rows["drop:mlp"] == [0, 1, 2, 3, 4]
    assert rows["single"] == [0, 3, 4]
    assert rows["drop:text.mlp"] == [0]
    assert rows["merge"] == [1]
    assert all(row.score > 0 for row in done.rows)
