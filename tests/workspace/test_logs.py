"""A job's log: bounded, its newest lines kept, shown as a terminal shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import tasks
from workbench.workspace import jobs
from workbench.workspace.job_log import LONGEST_LINE, older, tail
from workbench.workspace.store import Store

from .conftest import wait_for

LIMIT = 30_000


def numbers(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines]


def test_a_job_that_prints_much_has_a_bounded_log_with_the_newest_lines(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_LOG_BYTES", str(LIMIT))
    job = jobs.submit(store, "chatter", {"lines": 3000, "killed": True})
    ended = wait_for(store, job.id, "failed", "lost", "done")
    logs = list(job.folder.glob("log*.txt"))
    assert {log.name for log in logs} == {"log.txt", "log-1.txt"}
    printed = 3000 * 100
    assert sum(log.stat().st_size for log in logs) < printed / 2, "of days, a fraction"
    *last, word = jobs.log_tail(store, job.id, 200).splitlines()
    assert word == "about to die"
    assert numbers(last) == list(range(2801, 3000)), "across the two files, none is missing"
    assert ended.error.splitlines()[-1] == "about to die"


def test_the_tail_reads_on_in_the_older_file(tmp_path: Path):
    log = tmp_path / "log.txt"
    older(log).write_text("one\ntwo\nthr")
    log.write_text("ee\nfour\n")
    assert tail(log, 3) == ["two", "three", "four"]


def test_a_progress_bar_is_its_last_state_and_the_warning_before_it_stays(tmp_path: Path):
    log = tmp_path / "log.txt"
    bars = "".join(f"\r{number:7d} of 100000 [{'=' * 20}]" for number in range(20_000))
    log.write_text(f"a warning\nsteps:{bars}\r\nafterwards\n")
    assert log.stat().st_size > 700_000
    assert tail(log, 50) == ["a warning", f"  19999 of 100000 [{'=' * 20}]", "afterwards"]


def test_colours_control_characters_and_endless_lines_are_no_text(tmp_path: Path):
    log = tmp_path / "log.txt"
    log.write_bytes(b"\x1b[1;31mred\x1b[0m\x00 \xff\tx\n" + b"y" * 10_000_000 + b"\nlast\n")
    first, second, last = tail(log, 3)
    assert first == "red \ufffd\tx"
    assert second == "y" * LONGEST_LINE + " .."
    assert last == "last"


def test_a_log_says_what_was_given_how_far_it_is_and_how_long_it_took(store: Store):
    """In the foreground, too."""
    tasks.run("count", {"steps": 3}, store.workspace, device="cpu")
    [job] = jobs.list_jobs(store)
    *lines, last = [line[9:] for line in tail(job.folder / "log.txt")]
    assert lines[0] == "count on cpu, given:" and "  steps: 3" in lines
    assert lines[-3:] == ["1 of 3, loss 1", "2 of 3, loss 0.5", "3 of 3, loss 0.3333"]
    assert last.startswith("done in ")


def test_no_log_has_no_lines(tmp_path: Path):
    assert tail(tmp_path / "log.txt") == []
