"""The page of runtimes is what their table says now."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_runtimes_is_current() -> None:
    page = runpy.run_path(str(DOCS / "runtimes.py"))["page"]
    assert (DOCS / "runtimes.md").read_text() == page(), "run python docs/runtimes.py"
