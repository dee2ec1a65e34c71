"""The notebook's editor in a real JupyterLab: clicks reach Python, and nothing leaves the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.ui.conftest import ROOT, chromium, fill, free_port, open_tab

__all__ = ["chromium", "open_tab"]  # fixtures of another folder

CELL = """
from workbench import lab
editor = lab.sensitivity("{folder}/sensitivity/synthetic.json", "{folder}/teachers/synthetic.json")
editor
"""


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--notebook-dir={folder}",
        "--IdentityProvider.token=",
        "--allow-root",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".run"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces"),
    }
    with open(folder / "lab.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    url = f"http://127.0.0.1:{port}/lab/tree/editor.ipynb"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2).close()
            return process, url
        except OSError:
            time.sleep(0.2)
    raise RuntimeError((folder / "lab.log").read_text())


@pytest.mark.browser
@pytest.mark.slow
def test_a_click_in_jupyterlab_edits_the_plan(tmp_path: Path, open_tab: Any):
    fill(tmp_path, 24)
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(CELL.format(folder=tmp_path)),
            nbformat.v4.new_code_cell(
                "from pathlib import Path\n"
                "Path('plan.tmp').write_text(editor.plan.model_dump_json())\n"
                "Path('plan.tmp').rename('plan.json')"  # there only when it is whole
            ),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    nbformat.write(notebook, tmp_path / "editor.ipynb")
    process, url = start(tmp_path)
    try:
        tab = open_tab(url)
        page = tab.page
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60000)
        page.get_by_text("| Idle").wait_for(timeout=120000)  # before that, Shift+Enter runs nothing
        page.locator(".jp-Notebook .jp-CodeCell").first.click()
        page.keyboard.press("Shift+Enter")
        chart = page.locator(
            ".jp-OutputArea .vega-embed canvas, .jp-OutputArea .vega-embed svg"
        ).first
        chart.wait_for(timeout=180000)  # the kernel starts and imports first
        page.wait_for_timeout(500)
        box = chart.bounding_box()
        assert box
        page.mouse.click(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.6)
        page.get_by_text("selected: ", exact=False).filter(has_not_text="nothing").first.wait_for(
            timeout=20000
        )
        page.get_by_role("button", name="drop", exact=True).click()
        page.get_by_text("96 % of the teacher").wait_for(timeout=20000)
        page.locator(".jp-Notebook .jp-CodeCell").nth(1).click()
        page.keyboard.press("Shift+Enter")
        for _ in range(100):
            if (tmp_path / "plan.json").exists():
                break
            time.sleep(0.1)
        assert (
            len(json.loads((tmp_path / "plan.json").read_text())["stacks"]["transformer_blocks"])
            == 23
        )
        assert tab.outside == []
    finally:
        process.terminate()
        process.wait(20)
