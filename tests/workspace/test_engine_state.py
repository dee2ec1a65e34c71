"""What a job that an engine runs is said to be, by its own files and the engine's last word."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.workspace.cluster.engine_files import Answer, Start, write_answer, write_start
from workbench.workspace.cluster.engine_state import derive
from workbench.workspace.job_rows import JobRow

ROW = JobRow("0001-count", 1, "count", "count", "cpu", "{}", "running", 1.0, 0, 0.0)


@pytest.mark.parametrize(("began", "state"), [(99.0, "queued"), (101.0, "running")])
def test_a_job_that_a_node_began_after_the_engine_said_it_waits_runs(
    began: float, state: str, tmp_path: Path
):
    """Else a pause takes it for one that waits: it is paused at once, and killed as it writes."""
    row = JobRow(**{**vars(ROW), "engine": "slurm", "engine_id": "7"})
    write_answer(tmp_path, Answer(state="waiting", word="PENDING", asked=100.0))
    assert derive(row, tmp_path)[0] == "queued"
    write_start(tmp_path, Start(attempt=1, time=began))
    assert derive(row, tmp_path)[0] == state
