"""What a job's log says while it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.records import Progress
from workbench.specs import parse_spec
from workbench.tasks.job_lines import LINES, JobLines, progress_line, spec_lines, written_paths


def lines_of(folder: Path) -> list[str]:
    return [line[9:] for line in (folder / "log.txt").read_text().splitlines()]


@pytest.mark.parametrize("total", [3, 50, 999, 20_000])
def test_a_long_phase_has_about_fifty_lines_with_its_first_and_last_step(
    tmp_path: Path, total: int
):
    log = JobLines(tmp_path)
    for step in range(1, total + 1):
        log.see(Progress(step=step, total=total, message="learns", metrics={"loss": 1 / step}))
    lines = lines_of(tmp_path)
    assert lines[0] == f"1 of {total}, learns, loss 1"
    assert lines[-1].startswith(f"{total} of {total}, ")
    assert min(total, LINES) <= len(lines) < 2 * LINES


def test_every_message_that_does_not_count_steps_has_its_line(tmp_path: Path):
    log = JobLines(tmp_path)
    for message in ("loading", "timing", "timing", "400 requested, 19 fit"):
        log.see(Progress(step=0, total=1, message=message))
    log.see(Progress(step=0, total=19, message="fits block 3"))
    assert lines_of(tmp_path) == [
        "loading",
        "timing",
        "400 requested, 19 fit",
        "0 of 19, fits block 3",
    ]


def test_losses_of_the_whole_come_before_those_of_blocks():
    blocks = {f"loss/blocks.{number}": 0.5 for number in range(20)}
    metrics = {"stage": "x", **blocks, "lr": 1e-4, "feature": 0.25, "loss": 0.125, "is_new": True}
    line = progress_line(Progress(step=7, total=9, metrics=metrics))
    assert line.startswith("7 of 9, loss 0.125, feature 0.25, lr 0.0001, loss/blocks.0 0.5")
    assert "is_new" not in line and line.count("loss/") == 5


def test_what_was_given_is_listed_without_defaults():
    lines = spec_lines(parse_spec("distill", {"student": "/some/student", "steps": 40}))
    assert lines == ["  student: /some/student", "  steps: 40"]
    assert spec_lines(parse_spec("profile", {"teacher": "demo"})) == ["  teacher: demo"]


def test_only_files_that_are_there_were_written(tmp_path: Path):
    (tmp_path / "map.json").touch()
    result = {"out": str(tmp_path / "map.json"), "gone": str(tmp_path / "x"), "best": "uniform"}
    assert written_paths(result) == [str(tmp_path / "map.json")]
    assert written_paths("a text") == []
