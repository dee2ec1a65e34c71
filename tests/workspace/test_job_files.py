"""Metrics and progress: written row by row, read with a cursor, one file per attempt."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from workbench.records import Progress
from workbench.workspace import job_files
from workbench.workspace.job_files import (
    Clock,
    Cursor,
    ProgressState,
    ProgressWriter,
    metrics_file,
    read_metrics,
)


def record(folder: Path, attempt: int, steps: range) -> None:
    writer = ProgressWriter(folder, attempt)
    for step in steps:
        metrics = {"loss": 1 / step, "attempt": attempt}
        writer(Progress(step=step, total=10, metrics=metrics))
    writer.close()


def steps_of(rows: list[dict]) -> list[int]:
    return [row["step"] for row in rows]


def test_a_half_written_line_is_read_when_it_is_whole(tmp_path: Path):
    path = metrics_file(tmp_path, 1)
    assert path.name == "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    rows, cursor = read_metrics(tmp_path)
    assert steps_of(rows) == [1]
    with open(path, "a") as file:
        file.write('ss": 0.5}\n')
    rows, cursor = read_metrics(tmp_path, cursor)
    assert rows == [{"step": 2, "loss": 0.5}]
    assert read_metrics(tmp_path, cursor) == ([], cursor)


def test_a_resumed_attempt_replaces_the_rows_from_its_first_step_on(tmp_path: Path):
    record(tmp_path, 1, range(1, 9))
    record(tmp_path, 2, range(5, 8))
    record(tmp_path, 3, range(7, 10))
    rows, _ = read_metrics(tmp_path)
    assert steps_of(rows) == list(range(1, 10)), "no hole and no double"
    assert [row["attempt"] for row in rows] == [1] * 4 + [2] * 2 + [3] * 3


@pytest.mark.parametrize("looks", [1, 2, 3, 5, 8])
def test_a_reader_with_a_cursor_holds_what_a_fresh_reader_reads(tmp_path: Path, looks: int):
    """Two ways of reading the same files, whenever the reader looks."""
    held: list[dict] = []
    cursor = Cursor()
    written = 0
    for attempt, steps in ((1, range(1, 9)), (2, range(4, 7)), (4, range(7, 12))):
        writer = ProgressWriter(tmp_path, attempt)
        for step in steps:
            writer(Progress(step=step, total=10, metrics={"attempt": attempt}))
            written += 1
            if written % looks == 0:
                fresh, cursor = read_metrics(tmp_path, cursor)
                if fresh:
                    held = [row for row in held if row["step"] < fresh[0]["step"]] + fresh
                assert held == read_metrics(tmp_path)[0]
        writer.close()


def test_an_attempt_that_wrote_nothing_yet_changes_nothing(tmp_path: Path):
    record(tmp_path, 1, range(1, 4))
    metrics_file(tmp_path, 2).write_text('{"step": 2, "l')
    rows, cursor = read_metrics(tmp_path)
    assert steps_of(rows) == [1, 2, 3]
    record(tmp_path, 3, range(3, 5))
    assert steps_of(read_metrics(tmp_path, cursor)[0]) == [3, 4]


def test_a_cursor_comes_back_from_a_browser(tmp_path: Path):
    assert Cursor.parse(json.loads(json.dumps(Cursor(2, 70)))) == Cursor(2, 70)
    for forged in (0, None, "x", [1], [1, -2], [1.5, 2], [True, 3], {"attempt": 1}):
        assert Cursor.parse(forged) == Cursor()
    record(tmp_path, 1, range(1, 4))
    assert read_metrics(tmp_path, Cursor(1, 10**9))[0] == []


def test_numbers_that_json_lacks_become_null(tmp_path: Path):
    writer = ProgressWriter(tmp_path)
    writer(Progress(step=1, total=1, metrics={"loss": math.nan}))
    writer.close()
    [row] = read_metrics(tmp_path)[0]
    assert row["step"] == 1 and row["loss"] is None and row["time"] > 0


def test_progress_is_written_a_few_times_a_second(tmp_path: Path):
    writer = ProgressWriter(tmp_path, every=3600)
    for step in range(100):
        writer(Progress(step=step, total=100))
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 0
    writer.close()
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 99


def test_the_training_loop_never_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    writer = ProgressWriter(tmp_path, every=0)
    for step in range(1, 50):
        writer(Progress(step=step, total=50, metrics={"loss": 1.0}))
    assert synced == []
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 49
    assert len(read_metrics(tmp_path)[0]) == 49, "a row can be read at once"
    writer.close()


@pytest.mark.parametrize("most", [1, 7, 100, 5000])
def test_a_thinned_history_is_a_part_of_the_whole_with_both_ends(tmp_path: Path, most: int):
    record(tmp_path, 1, range(1, 700))
    record(tmp_path, 2, range(500, 1000))
    whole, end = read_metrics(tmp_path)
    thinned, cursor = read_metrics(tmp_path, most=most)
    assert cursor == end, "the next look goes on where this one ended"
    assert thinned == [row for row in whole if row in thinned]
    assert (thinned[0], thinned[-1]) == (whole[0], whole[-1])
    assert min(most / 3, 999) <= len(thinned) <= most + 4
    assert (thinned == whole) == (most > 600)


# --- time left ------------------------------------------------------------------------------------


class Machine:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(job_files, "time", made)
    return made


def eta_after(machine: Machine, states: list[tuple[float, int, int]]) -> float | None:
    """States as (seconds before it, step, total); the estimate after the last one."""
    clock = Clock()
    for seconds, step, total in states:
        machine.now += seconds
        progress = Progress(step=step, total=total)
        clock.see(progress)
    return clock.eta(progress)


def test_loading_filling_caches_and_fitting_are_no_steps(machine: Machine):
    before = [(0.0, 0, 1), (600.0, 0, 50), (3.0, 1, 50), (600.0, 0, 400), (300.0, 0, 400)]
    steps = [(2.0, step, 400) for step in range(1, 11)]
    assert eta_after(machine, before + steps) == pytest.approx(2.0 * 390)


def test_a_resumed_run_counts_its_own_steps_alone(machine: Machine):
    states = [(0.0, 0, 1), (3600.0, 301, 400), (2.0, 302, 400), (2.0, 303, 400)]
    assert eta_after(machine, states) == pytest.approx(2.0 * 97)


def test_nothing_is_estimated_before_the_second_step_or_after_the_last(machine: Machine):
    assert eta_after(machine, [(0.0, 0, 1), (9.0, 5, 10)]) is None
    assert eta_after(machine, [(0.0, 9, 10), (9.0, 10, 10)]) is None, "it still writes its files"


def test_an_estimate_gets_old_and_another_attempts_does_not_count(machine: Machine):
    state = ProgressState(step=5, total=10, eta=60.0, time=990.0)
    assert state.left(since=900.0) == pytest.approx(50.0)
    assert state.left(since=995.0) is None
    machine.now += 100
    assert state.left(since=900.0) is None
