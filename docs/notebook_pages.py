"""A hook of the site's builder: the notebooks become pages of the site, with their stored outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        text, _ = MarkdownExporter().from_notebook_node(book)
        text = text.replace("](../docs/", "](../")
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files
