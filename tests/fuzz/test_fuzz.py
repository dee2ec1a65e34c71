"""A short run of the fuzzer; `python -m tests.fuzz --mutations 2000` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys


def test_mutated_files_are_taken_or_refused_with_one_line():
    """In a process of its own: it measures its memory and takes the alarm signal."""
    command = [sys.executable, "-m", "tests.fuzz", "--mutations", "150", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mutations"] == 150
    assert result["failures"] == []
