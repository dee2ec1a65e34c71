"""The plan being edited, on disk: its history, its version, and who may change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import plans
from workbench.ui import draft

from . import synthetic

TEACHER = synthetic.teacher(24)


def test_a_draft_is_on_disk_with_its_history(tmp_path: Path):
    plan = plans.identity(TEACHER)
    by_hand = plan.model_copy(update={"origin": {"rule": "by hand"}})
    first = draft.change(tmp_path, TEACHER, 0, lambda current: current.to(by_hand))
    assert (first.version, draft.load(tmp_path, TEACHER).plan) == (1, by_hand)
    undone = draft.change(tmp_path, TEACHER, 1, draft.Draft.back)
    assert undone.plan.stacks == plan.stacks
    redone = draft.change(tmp_path, TEACHER, 2, draft.Draft.forth)
    assert redone.plan.origin == {"rule": "by hand"}
    assert draft.latest(tmp_path) == "synthetic"


def test_a_stale_change_is_refused_and_changes_nothing(tmp_path: Path):
    draft.change(tmp_path, TEACHER, 0, lambda current: current.to(current.plan))
    with pytest.raises(draft.Stale) as refused:
        draft.change(tmp_path, TEACHER, 0, lambda current: current.to(plans.identity(TEACHER)))
    assert refused.value.expected == "the latest version"
    assert draft.load(tmp_path, TEACHER).version == 1


def test_a_damaged_draft_gives_the_identity_plan(tmp_path: Path):
    path = draft.path_of(tmp_path, TEACHER)
    path.parent.mkdir()
    path.write_text("{")
    assert draft.load(tmp_path, TEACHER).plan == plans.identity(TEACHER)
