"""The project's own papers agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from workbench.records import yamlfile

ROOT = Path(__file__).parent.parent


def test_environment_yml_agrees_with_pyproject():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    environment = yamlfile.parse((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert sorted(pip) == sorted(declared)


def test_torch_is_pinned_exactly():
    assert "torch==2.13.0" in (ROOT / "pyproject.toml").read_text()
    assert "torch==2.13.0" in (ROOT / "Makefile").read_text()


def test_the_container_has_the_torch_and_the_python_that_are_tested():
    steps = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "torch==2.13.0" in steps
    assert project["requires-python"] == ">=3.11" and "FROM python:3.11" in steps
    copied = re.findall(r"^COPY (.+) \S+$", steps, re.MULTILINE)
    kept = (ROOT / ".dockerignore").read_text().split()
    for name in " ".join(copied).split():
        assert f"!{name}" in kept, f"{name} is copied but ignored"


def test_every_extra_is_explained():
    page = (ROOT / "docs" / "install.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert {name for name in extras if f"dit-workbench[{name}]" not in page} == {"test"}


def test_links_between_the_documents_lead_somewhere():
    papers = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    broken = []
    for paper in papers:
        for target in re.findall(r"\]\(([^)#\s]+)", paper.read_text(encoding="utf-8")):
            if "://" not in target and not (paper.parent / target).exists():
                broken.append(f"{paper.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_no_weight_file_is_too_large():
    files = [p for p in (ROOT / "workbench").rglob("*.safetensors")]
    assert all(p.stat().st_size < 50e6 for p in files)
    assert sum(p.stat().st_size for p in files) <= 60e6
