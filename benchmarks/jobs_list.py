"""CPU time to list 1,000 jobs, from the database and from the folders alone:
`python benchmarks/jobs_list.py`.

Prints seconds of CPU, the best of five, and their ratio.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from workbench.workspace import job_rows, jobs
from workbench.workspace.job_rows import folder_of
from workbench.workspace.store import Store

JOBS = 1000


def fill(store: Store) -> None:
    """Jobs that have ended, as copies of one."""
    first = jobs.submit(store, "info", {"teacher": "demo"}, device="cpu", start=False)
    with store.db() as db:
        row = job_rows.read_row(db, first.id)
        assert row is not None
        for number in range(2, JOBS + 1):
            job = f"{number:04d}-info"
            folder = folder_of(store.workspace, job)
            folder.mkdir()
            (folder / "progress.json").write_text('{"step": 3, "total": 3, "message": "done"}')
            job_rows.insert_row(db, folder, replace(row, id=job, number=number, state="done"))


def from_folders(store: Store) -> list[jobs.Job]:
    rows = job_rows.rows_of_folders(store.workspace)
    queue = jobs.Queue(store.workspace, rows)
    return [jobs.job_of(store, row, queue) for row in rows]


def best_of_five(look: Callable[[], list[jobs.Job]]) -> float:
    """Seconds of CPU."""
    times = []
    for _ in range(5):
        start = time.process_time()
        assert len(look()) == JOBS
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        fill(store)
        database = best_of_five(lambda: jobs.list_jobs(store))
        folders = best_of_five(lambda: from_folders(store))
    print(f"{JOBS} jobs from the database: {database:.3f} s of CPU")
    print(f"{JOBS} jobs from the folders: {folders:.3f} s of CPU, ratio {folders / database:.2f}")


if __name__ == "__main__":
    main()
