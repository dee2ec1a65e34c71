"""Kill -9 at random over app, front ends, workers and jobs: `python tests/faults.py`, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import Faults


@pytest.mark.slow
def test_ten_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_IDLE", "1")
    monkeypatch.setenv("WORKBENCH_DEVICE", "cpu")
    count = Faults(tmp_path, kills=10, seed=5, distillations=0).run()
    assert count.notes == []
    assert (count.lost_jobs, count.wrong_states) == (0, 0)
    assert count.bit_equal_resumes == count.resumes
    assert count.kills >= 10
    assert count.jobs > 0
