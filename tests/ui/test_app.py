"""The app without a browser: drafts on disk, handlers, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import plans
from workbench.jobs import list_jobs
from workbench.records import BadInput, Comparison
from workbench.store import Store
from workbench.ui import catalogue, draft, view
from workbench.ui.compare_page import ComparePage, cost_table
from workbench.ui.jobs_page import JobsPage
from workbench.ui.launch_panel import LaunchPanel, safe_name, whole
from workbench.ui.plan_page import PlanPage

from . import synthetic
from .conftest import ROOT, fill

PATH = "transformer_blocks"
TEACHER = synthetic.teacher(24)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    fill(tmp_path, 24)
    return store


def key(store: Store) -> str:
    return next(value for label, value in catalogue.teachers(store) if label == "synthetic")


def test_the_app_opens_without_torch():
    code = "import sys, workbench.ui; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


# --- drafts ------------------------------------------------------------------------------------------------------------


def test_a_draft_lives_on_disk_with_its_history(tmp_path: Path):
    plan = plans.identity(TEACHER)
    small = plan.model_copy(update={"origin": {"rule": "by hand"}})
    first = draft.change(tmp_path, TEACHER, 0, lambda d: d.to(small))
    assert (first.version, draft.load(tmp_path, TEACHER).plan) == (1, small)
    back = draft.change(tmp_path, TEACHER, 1, draft.Draft.back)
    assert back.plan.stacks == plan.stacks
    assert draft.change(tmp_path, TEACHER, 2, draft.Draft.forth).plan.origin == {"rule": "by hand"}
    assert draft.latest(tmp_path) == "synthetic"


def test_a_stale_change_is_refused_and_changes_nothing(tmp_path: Path):
    draft.change(tmp_path, TEACHER, 0, lambda d: d.to(d.plan))
    with pytest.raises(draft.Stale, match="another window"):
        draft.change(tmp_path, TEACHER, 0, lambda d: d.to(plans.identity(TEACHER)))
    assert draft.load(tmp_path, TEACHER).version == 1


def test_a_damaged_draft_gives_the_identity(tmp_path: Path):
    path = draft.path_of(tmp_path, TEACHER)
    path.parent.mkdir()
    path.write_text("{")
    assert draft.load(tmp_path, TEACHER).plan == plans.identity(TEACHER)


# --- handlers --------------------------------------------------------------------------------------------------------------


def test_marks_change_the_plan_on_disk_and_bad_ones_say_one_line(store: Store):
    page = PlanPage(store)
    heat = {"version": 0, "selected": [4, 5], "plan": None}
    value, budget, yaml, *_, message = page.marker("drop")(heat, key(store), None, "normalised")
    assert value["version"] == 1 and [m["mark"] for m in value["plan"]["marks"]][3:6] == ["keep", "drop", "drop"]
    assert "22" in budget and "blocks: [3, 5]" in yaml and message == ""
    everything = {"version": 1, "selected": list(range(24))}
    value, *_, message = page.marker("drop")(everything, key(store), None, "normalised")
    assert "at least one kept block" in message and value["version"] == 1 and value["selected"] == list(range(24))
    *_, message = page.marker("keep")(heat, key(store), None, "normalised")
    assert "another window" in message


@pytest.mark.parametrize("heat", [None, [], "x", {"selected": "all"}, {"version": "0", "selected": [-1, 99, "4", 1.5, True, [1]]}])
def test_forged_values_change_nothing(store: Store, heat):
    *_, message = PlanPage(store).marker("drop")(heat, key(store), None, "normalised")
    assert "window" in message or "no block is selected" in message
    assert not draft.path_of(store.workspace, TEACHER).exists()


def test_an_unknown_teacher_or_map_is_refused(store: Store):
    with pytest.raises(BadInput):
        catalogue.teacher(store, "/etc/passwd")
    assert catalogue.sensitivity(store, TEACHER, "/etc/passwd") is None
    *_, message = PlanPage(store).on_propose({"version": 0}, key(store), None, "normalised", "amber", 12, "", "1")
    assert "sensitivity map" in message


def test_a_proposal_becomes_the_draft(store: Store):
    chosen = catalogue.maps(store, TEACHER)[0][1]
    value, budget, *_ = PlanPage(store).on_propose({"version": 0}, key(store), chosen, "high-noise", "amber", 12, "mean", "length")
    assert len(value["plan"]["student"]) == 12 and "predicted error" in budget


def test_two_stacks_share_a_depth():
    one = TEACHER.stacks[0]
    both = TEACHER.model_copy(update={"stacks": [one, one.model_copy(update={"path": "b", "layout_of": [0] * 6})]})
    for total in range(2, 31):
        split = view.split_keep(both, total)
        assert sum(split.values()) == total and 1 <= split["b"] <= 6 and 1 <= split[PATH] <= 24


def test_launch_checks_names_and_numbers(store: Store):
    panel = LaunchPanel(store, PlanPage(store))
    assert "role=\"alert\"" in panel.on_save(key(store), "../../evil")
    assert "Saved" in panel.on_save(key(store), "mine") and (store.workspace / "plans" / "mine.yaml").exists()
    assert "no student" in panel.on_distil("/etc", "workbench", 5, 0, None)
    for bad in ("", "a/b", "..", "x" * 99):
        with pytest.raises(BadInput):
            safe_name(bad, "plan")
    for bad in (None, "5", 1.5, 0, True, float("nan")):
        with pytest.raises((BadInput, ValueError)):
            whole(bad, 1, 10, "steps")
    assert "--timesteps 8" in panel.commands(key(store), "plan", None, "workbench", 5, 0, ["drop"], 8, 1, None, None)[2]
    assert list_jobs(store) == []


def test_the_curve_asks_with_a_cursor_and_forged_questions_get_nothing(store: Store):
    page = JobsPage(store)
    for asked in (None, {}, {"job": "../..", "after": 0}, {"job": 5, "after": "x"}):
        assert page.tail(asked)["rows"] == []


# --- comparisons -----------------------------------------------------------------------------------------------------------


def with_pictures(store: Store) -> Comparison:
    from PIL import Image

    record = synthetic.comparison()
    folder = store.workspace / "comparisons" / "one"
    for model, files in record.images.items():
        for number, file in enumerate(files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (96, 96), (40 * number, 80, 200 if model == "demo" else 90)).save(folder / file)
    record.save(folder / "comparison.json")
    return record


def test_a_comparison_shows_the_same_prompt_and_seed_on_both_sides(store: Store):
    with_pictures(store)
    page, folder = ComparePage(store), str(store.workspace / "comparisons" / "one")
    pair, caption, grid, at = page.picture(folder, "demo", "student-12", 3)
    assert [Path(p).name for p in pair] == ["demo-3.png", "student-12-3.png"] and at == 3
    assert "seed 1" in caption and "&lt;b&gt;" in caption and len(grid) == 4
    assert page.picture(folder, "demo", "student-12", 4)[3] == 0, "next goes round"
    assert page.picture("/etc", "demo", "x", 0)[0] is None


def test_pictures_outside_the_comparison_are_not_shown(store: Store):
    record = with_pictures(store)
    folder = store.workspace / "comparisons" / "one"
    data = json.loads((folder / "comparison.json").read_text())
    data["images"]["demo"] = ["../../../secret.png"] * 4
    assert ComparePage(store).file(folder, record.model_validate(data), "demo", 0) is None


def test_cost_table_escapes_names():
    comparison = synthetic.comparison()
    evil = comparison.models[0].model_copy(update={"name": "<img src=x>"})
    assert "<img" not in cost_table(comparison.model_copy(update={"models": [evil, comparison.models[1]]}))
