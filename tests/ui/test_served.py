"""The app as it is served, in a process of its own: what it imports, and whom it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT, fill, free_port


def test_the_served_app_has_no_torch_and_a_guard(tmp_path: Path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pydantic.py").write_text("raise SystemExit('imported from here')")
    code = [sys.executable, "-P", str(Path(__file__).with_name("serve_and_ask.py"))]
    workspace = fill(tmp_path / "workspace", 6)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WORKBENCH_TRUST_REMOTE_CODE": "1"}
    ended = subprocess.run(
        [*code, str(workspace), str(free_port())],
        capture_output=True,
        text=True,
        cwd=tmp_path / "here",
        env=env,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["heavy"] == [] and said["trust"] is None
    assert (said["page"], said["config"]) == (200, 401)
    assert [said[name] for name in ("rebound", "upload", "foreign")] == [403, 403, 403]
    assert said["logins"] == [400] * 5 + [429]
