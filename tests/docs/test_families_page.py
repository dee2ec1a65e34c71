"""The page of families is what the table says now, and no cell is empty without a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_families_is_current() -> None:
    command = [sys.executable, "docs/families.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_files_that_it_names_as_tests_exist() -> None:
    page = (ROOT / "docs" / "families.md").read_text()
    named = [part for part in page.split("`") if part.startswith("tests/")]
    assert len(named) >= 5
    for name in named:
        assert (ROOT / name).is_file(), name
