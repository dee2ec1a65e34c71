"""A Space of a student of the bundled teacher: what is in it, and that it runs in a real browser
where the workbench cannot be imported.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from tests.release.test_release import compared, folders, release, student
from tests.release.writable_hub import running
from tests.ui.conftest import Tab, chromium, free_port
from workbench import tasks
from workbench.records import Comparison, read_yaml
from workbench.specs import BuildSpec, CompareSpec, PlanSpec, ReleaseSpec

__all__ = ["chromium", "folders", "student"]  # fixtures of other files

# As `python -I app.py`, with the workbench out of reach even where it is installed.
ALONE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("workbench", "tests"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
runpy.run_path("app.py", run_name="__main__")
"""
STEPS = 3


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Space of a student with a third of the bundled teacher's blocks and factored modulation,
    so with code of its own.
    """
    root = tmp_path_factory.mktemp("space")
    workspace = root / "workspace"
    plan = PlanSpec(
        teacher="demo-12", rule="uniform", keep="4", modulation_rank=8, out=str(root / "plan.yaml")
    )
    tasks.run("plan", plan, workspace)
    tasks.run("build", BuildSpec(plan=plan.out, out=str(root / "small")), workspace)
    comparison = CompareSpec(
        models=["demo-12", str(root / "small")],
        out=str(root / "comparison"),
        prompts_per_category=1,
        seeds=1,
        sampling_steps=STEPS,
        guidance=3,
        scorers=["scenes"],
        dtype="fp32",
    )
    tasks.run("compare", comparison, workspace)
    spec = ReleaseSpec(
        student=str(root / "small"),
        comparison=str(root / "comparison"),
        out=str(root / "release"),
        space=True,
    )
    return Path(tasks.run("release", spec, workspace)["space"])


@pytest.fixture(scope="module")
def address(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Space as a stranger runs it."""
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "log.txt"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
    }
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", ALONE],
            cwd=space,
            env=environment,
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}/"
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield url
    process.kill()
    process.wait(10)


def pixels(source: Any) -> np.ndarray:
    with Image.open(source) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32)


def pictures_on(tab: Tab) -> list[np.ndarray]:
    """The slider's two pictures as the browser shows them: teacher, student."""
    images = tab.page.locator("#slider img").all()
    sources = [urllib.parse.urljoin(tab.page.url, image.get_attribute("src")) for image in images]
    return [pixels(io.BytesIO(urllib.request.urlopen(source).read())) for source in sources]


@pytest.mark.browser
def test_it_draws_in_a_browser_what_the_comparison_drew_without_the_workbench(
    space: Path, address: str, chromium: object
) -> None:
    data = json.loads((space / "space.json").read_text())
    example = data["examples"][1]
    teacher, student = (pixels(space / name) for name in example["pictures"]["0"])
    tab = Tab(chromium, address)
    page = tab.page
    page.locator("#gallery button.thumbnail-item, #gallery .gallery-item button").nth(1).click()
    page.wait_for_function(
        "text => document.querySelector('#prompt textarea').value === text", arg=example["prompt"]
    )
    page.wait_for_timeout(500)
    for shown, stored in zip(pictures_on(tab), (teacher, student), strict=True):
        assert np.array_equal(shown, stored)
    page.locator("#draw").click()
    page.locator("#note").get_by_text("Drawn just now").wait_for()
    page.wait_for_timeout(500)
    left, right = pictures_on(tab)
    assert np.array_equal(left, teacher)
    # the comparison drew several at once, which changes a picture by rounding
    assert np.abs(right - student).mean() < 1
    page.locator("#prompt textarea").fill("a red star on navy")
    page.locator("#draw").click()
    page.locator("#alone img").wait_for()  # the teacher has no picture of it
    assert page.locator("#slider").count() == 0 or not page.locator("#slider").is_visible()
    assert not tab.errors and not tab.outside
    tab.close()


def test_what_it_shows_is_what_the_comparison_holds(space: Path) -> None:
    data = json.loads((space / "space.json").read_text())
    folder = space.parent / "comparison"
    comparison = Comparison.load(folder / "comparison.json")
    teacher, student = comparison.models
    assert [example["prompt"] for example in data["examples"]] == comparison.prompts
    for number, example in enumerate(data["examples"]):
        for model, name in zip((teacher, student), example["pictures"]["0"], strict=True):
            original = pixels(folder / comparison.images[model.name][number])
            assert np.array_equal(pixels(space / name), original)
    rows = {label: cells for label, *cells in data["table"]}
    assert rows["parameters"] == [f"{teacher.parameters:,}", f"{student.parameters:,}"]
    assert data["steps"] == STEPS and data["guidance"]["value"] == 3
    figure = data["highlights"][0]["value"]
    assert figure == f"{100 * student.parameters / teacher.parameters:.0f} %"


def test_its_folder_is_one_that_the_hub_runs(space: Path) -> None:
    readme = (space / "README.md").read_text()
    [front_matter] = re.findall(r"\A---\n(.*?)\n---\n", readme, re.S)
    entries = read_yaml(front_matter, "README.md", "front matter")
    assert (entries["sdk"], entries["app_file"]) == ("gradio", "app.py")
    assert len(entries["short_description"]) <= 60
    for line in (space / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9_-]+==[0-9.]+", line), line
    code = (space / "app.py").read_text()
    assert "workbench" not in code.lower()
    assert str(space.parent) not in "".join(
        file.read_text() for file in space.iterdir() if file.is_file()
    )


def test_a_space_without_a_comparison_or_without_its_pictures_is_refused_before_the_release(
    folders: tuple[Path, Path], student: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with refused(found="has not been compared", do="workbench compare"):
        release(tmp_path / "workspace", student, out=str(out), space=True)
    compared(tmp_path / "comparison", folders[0], student)
    for file in (tmp_path / "comparison").glob("*.png"):
        file.unlink()
    options = {"comparison": str(tmp_path / "comparison"), "out": str(out), "space": True}
    with refused(found="no pictures in"):
        release(tmp_path / "workspace", student, **options)
    (tmp_path / "out-space").mkdir()
    (tmp_path / "out-space" / "mine.txt").write_text("mine")
    compared(tmp_path / "comparison", folders[0], student)
    with refused(found="out-space is a folder with files"):
        release(tmp_path / "workspace", student, **options)
    assert not out.exists()


def test_a_space_is_uploaded_to_the_space_of_the_models_name_and_loads_that_model(
    folders: tuple[Path, Path], student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(tmp_path / "comparison", folders[0], student)
    options = {"comparison": str(tmp_path / "comparison"), "out": str(tmp_path / "out")}
    options |= {"space": True, "push": "anna/small"}
    with running(monkeypatch) as hub:
        release(tmp_path / "w", student, **options)
        assert hub.repos == {}
        app = tmp_path / "out-space" / "app.py"
        app.write_text(app.read_text() + "# by hand\n")
        done = release(tmp_path / "w", student, yes=True, **options)
        assert done["push"]["space_address"].endswith("/spaces/anna/small")
        assert {"anna/small", "spaces/anna/small"} == set(hub.repos)
        files = hub.repos["spaces/anna/small"]
        assert files["app.py"].endswith(b"# by hand\n")  # as it lies there
        data = json.loads(files["space.json"])
        assert (data["model"], data["title"]) == ("anna/small", "small")
        assert "model_index.json" in hub.repos["anna/small"]
