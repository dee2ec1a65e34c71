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
    draft.change(tmp_path, TEACHER, 0, lambda current: current)
    with pytest.raises(draft.Stale) as refused:
        draft.change(tmp_path, TEACHER, 0, lambda current: current.to(plans.identity(TEACHER)))
    assert refused.value.expected == "the latest version"
    assert draft.load(tmp_path, TEACHER).version == 1


def test_a_damaged_draft_gives_the_identity_plan(tmp_path: Path):
    path = draft.path_of(tmp_path, TEACHER)
    path.parent.mkdir()
    path.write_text("{")
    assert draft.load(tmp_path, TEACHER).plan == plans.identity(TEACHER)


def test_a_change_of_nothing_makes_no_version_and_no_step(tmp_path: Path):
    first = draft.change(tmp_path, TEACHER, 0, lambda current: current)
    assert draft.change(tmp_path, TEACHER, None, lambda current: current.to(current.plan)) == first
    noted = first.plan.model_copy(update={"origin": {"rule": "by hand"}})
    assert draft.change(tmp_path, TEACHER, 1, lambda current: current.edited(noted)) == first
    assert draft.change(tmp_path, TEACHER, 1, lambda current: current.to(noted)).version == 2


def test_what_is_remembered_of_a_file_is_what_is_in_it(tmp_path: Path):
    by_hand = plans.identity(TEACHER).model_copy(update={"origin": {"rule": "by hand"}})
    draft.change(tmp_path, TEACHER, 0, lambda current: current.to(by_hand), "a window")
    written = draft.change(tmp_path, TEACHER, None, lambda current: current.numbered("w", 5))
    draft.READ.clear()
    assert draft.load(tmp_path, TEACHER) == written
    assert (written.version, written.window, written.last_number("w")) == (1, "a window", 5)
