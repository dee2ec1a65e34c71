"""The package is about as easy to read as its peers: every count of benchmarks/density.py is below
twice the largest of theirs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import density  # noqa: E402

SOURCE = """
from typing import Any

# a comment is no line of code, nor is the blank one below

def three(x: Any, y: "Any" = 1):
    a, b = x, y
    first, *rest = a
    c = 1 if a else 2 if b else 3
    return [i for i in c], {j for i in a for j in i}, [list(k for k in i) for i in a]
"""


@pytest.mark.parametrize("row", density.FIELDS)
def test_the_package_is_below_twice_the_largest_count_of_its_peers(row: str):
    assert getattr(density.measure(ROOT / "workbench"), row) <= density.limit(row)


def test_what_is_counted(tmp_path: Path):
    (tmp_path / "module.py").write_text(SOURCE)
    (tmp_path / "test_module.py").write_text("a, b = 1, 2\n")  # tests are left out
    counts = density.measure(tmp_path)
    lines = 6
    expected = {
        "conditional": 2,
        "chained": 1,
        "comprehensions": 4,
        "nested": 2,
        "tuple_assignments": 1,
        "any": 1,
        "long_lines": 0,
    }
    for row, count in expected.items():
        assert getattr(counts, row) == pytest.approx(1000 * count / lines, abs=0.05), row
    assert (counts.median_function, counts.longest_function) == (5, 5)


def test_it_prints_a_table_and_json(tmp_path: Path):
    (tmp_path / "module.py").write_text(SOURCE)
    command = [sys.executable, str(ROOT / "benchmarks" / "density.py"), str(tmp_path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.startswith("| per 1,000 lines of code | ") and "| mergekit |" in text
    text = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    result = json.loads(text)
    assert result["ratio"] == max(result["ratios"].values())
    assert result["ratios"]["chained"] == pytest.approx(1000 / 6 / 0.5, rel=1e-3)
