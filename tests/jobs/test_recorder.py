"""Metrics: written row by row, read with a cursor, cut back when a run resumes."""

from __future__ import annotations

import math
from pathlib import Path

from workbench.records import Progress
from workbench.workspace.job_files import Recorder, read_metrics


def record(folder: Path, *steps: int) -> None:
    recorder = Recorder(folder)
    for step in steps:
        recorder(Progress(step=step, total=10, metrics={"loss": 1 / step}))
    recorder.close()


def test_a_torn_last_line_is_read_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    rows, cursor = read_metrics(path)
    assert [r["step"] for r in rows] == [1]
    with open(path, "a") as file:
        file.write('ss": 0.5}\n')
    rows, cursor = read_metrics(path, cursor)
    assert rows == [{"step": 2, "loss": 0.5}]
    assert read_metrics(path, cursor) == ([], cursor)
    assert cursor < 2**53, "exact in JavaScript"


def test_a_reader_sees_that_the_file_was_cut_back(tmp_path: Path):
    record(tmp_path, *range(1, 9))
    path = tmp_path / "metrics.jsonl"
    _, cursor = read_metrics(path)
    for _ in range(3):
        record(tmp_path, 5, 6, 7, 8, 9)
        rows, cursor = read_metrics(path, cursor)
        assert [r["step"] for r in rows] == list(range(1, 10)), "all again: nothing missed"


def test_resuming_at_the_next_step_keeps_the_file_and_mends_a_torn_end(tmp_path: Path):
    record(tmp_path, 1, 2, 3)
    _, cursor = read_metrics(tmp_path / "metrics.jsonl")
    record(tmp_path, 4)
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl", cursor)[0]] == [4]
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "l')
    record(tmp_path, 5)
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")[0]] == [1, 2, 3, 4, 5]


def test_numbers_that_json_lacks_become_null(tmp_path: Path):
    recorder = Recorder(tmp_path)
    recorder(Progress(step=1, total=1, metrics={"loss": math.nan}))
    recorder.close()
    assert read_metrics(tmp_path / "metrics.jsonl")[0] == [{"step": 1, "loss": None}]


def test_progress_is_written_a_few_times_a_second(tmp_path: Path):
    recorder = Recorder(tmp_path, every=3600)
    for step in range(100):
        recorder(Progress(step=step, total=100))
    first = (tmp_path / "progress.json").read_text()
    assert '"step": 0,' in first
    recorder.close()
    assert '"step": 99,' in (tmp_path / "progress.json").read_text()
