"""The documentation builds as a site, and a reader's browser loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.records import yamlfile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make site` does; a broken link or anchor ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_menu():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"- ([\w/-]+\.md)$", text, flags=re.MULTILINE))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    pages |= {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert listed == pages
    assert yamlfile.parse(text)["strict"] is True


def test_pages_load_nothing_from_elsewhere(site: Path):
    loaded = re.compile(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"(https?:[^\"]*)")
    found = set()
    for page in site.rglob("*.html"):
        for url in loaded.findall(page.read_text(encoding="utf-8")):
            found.add(url)
    assert found == set()
