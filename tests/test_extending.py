"""docs/extending.md: every example is a plugin file that works, without a change of the package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import workbench
from workbench.plugins import KINDS, registry, unregister
from workbench.plugins.files import load_plugin
from workbench.plugins.registry import imported

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
CALL = re.compile(r'workbench\.register\("(\w+)", "([\w-]+)"')


def example(kind: str) -> tuple[str, str]:
    """The page's example of a kind, and the name that it registers."""
    for code in EXAMPLES:
        for found, name in CALL.findall(code):
            if found == kind:
                return code, name
    raise AssertionError(f"docs/extending.md has no example of a {kind}")


def installed(kind: str) -> bool:
    """Whether the table of a kind is in the package yet."""
    try:
        return isinstance(imported(KINDS[kind].home), Mapping)
    except (ModuleNotFoundError, AttributeError):
        return False


@pytest.fixture
def plugin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """The example of the kind that the test names, loaded from a file."""
    kind = request.param
    if not installed(kind):
        pytest.skip(f"{KINDS[kind].home} does not exist yet")
    code, name = example(kind)
    file = tmp_path / f"my_{kind}.py"
    file.write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    load_plugin(file)
    yield file
    unregister(kind, name)


def plugin_of(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("plugin", [kind], indirect=True)


def run(*arguments: str) -> dict:
    """A command line in a process of its own; its JSON."""
    command = [sys.executable, "-m", "workbench", *arguments, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_page_names_every_kind():
    for kind in KINDS:
        assert f"| `{kind}` |" in PAGE, kind


@pytest.mark.parametrize(
    ("plugin", "kind"),
    [(kind, kind) for kind in KINDS if f'register("{kind}"' in PAGE],
    indirect=["plugin"],
)
def test_the_example_adds_a_row_of_the_right_type(plugin: Path, kind: str):
    _, name = example(kind)
    assert name in registry(kind).names()
    assert registry(kind)[name] is not None  # raises BadInput for a row of another type


@plugin_of("rule")
def test_the_rule_plans(plugin: Path):
    plan = workbench.plan("demo", rule="first-blocks", keep=12, out=plugin.parent / "plan.yaml")
    spans = plan.stacks["transformer_blocks"]
    assert [span.first for span in spans] == list(range(12))
    assert spans[-1].blocks == (11, 23)


@plugin_of("verb")
def test_the_verb_is_a_command_and_a_function(plugin: Path):
    assert run("count", "demo", "--plugin", str(plugin)) == {"blocks": 24}
    assert workbench.run("count", teacher="demo") == {"blocks": 24}


@plugin_of("recipe")
def test_the_recipe_plans(plugin: Path):
    plan = workbench.plan("demo", recipe="even-pairs", out=plugin.parent / "plan.yaml")
    spans = plan.stacks["transformer_blocks"]
    assert [(span.first, span.last, span.init, span.gain) for span in spans] == [
        (2 * pair, 2 * pair + 1, "mean", 2.0) for pair in range(12)
    ]


@plugin_of("loss")
def test_the_loss_is_that_of_numpy(plugin: Path):
    from workbench.training.builtin_losses import Predictions

    student, teacher = torch.randn(2, 3, 5, 4)
    value = registry("loss")["cosine"].compute(Predictions(student, teacher, teacher), None)
    pairs = [(a.numpy().ravel(), b.numpy().ravel()) for a, b in zip(student, teacher, strict=True)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    assert float(value) == pytest.approx(1 - np.mean(cosines), abs=1e-6)


@plugin_of("data_source")
@pytest.mark.slow
def test_the_data_source_fills_a_cache(plugin: Path):
    from workbench import demo, models
    from workbench.training.data_sources import CacheRequest, source_of

    name, source = source_of("coloured-circles")
    assert name == "coloured-circles"
    pipe = models.load_pipeline(demo.weights_folder())
    request = CacheRequest("coloured-circles", "demo", size=128, steps=2, guidance=1.0)
    *_, last = source.cache(pipe, request, plugin.parent / "cache", lambda: False)
    assert last.result["samples"] == 4


@plugin_of("scorer")
def test_the_scorer_scores(plugin: Path):
    images = [Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 200)]
    assert registry("scorer")["brightness"].score(images, [{}, {}], images) == [0.0, 200.0]


@plugin_of("chart")
def test_the_chart_is_drawn_from_its_rows(plugin: Path):
    from workbench.charts.table import draw

    plan = workbench.plan("demo", rule="uniform", keep=12, out=plugin.parent / "plan.yaml")
    rows = registry("chart")["span-lengths"].rows(plan)
    assert [row["length"] for row in rows] == [2] * 12
    assert draw("span-lengths", plan).to_dict()["data"] == {"values": rows}


@plugin_of("metric")
@pytest.mark.slow
def test_the_metric_profiles(plugin: Path):
    sensitivity = quick_profile(plugin, metric="residual")
    assert {row.block for row in sensitivity.rows} == set(range(24))
    assert all(row.score > 0 and row.edit == "drop" for row in sensitivity.rows)


@plugin_of("edit")
@pytest.mark.slow
def test_the_edit_profiles(plugin: Path):
    sensitivity = quick_profile(plugin, edits=["half", "drop"])
    scores = {(row.edit, row.block): row.score for row in sensitivity.rows}
    assert all(scores["half", block] < scores["drop", block] for block in range(24))


def quick_profile(plugin: Path, **options):
    """A map of the bundled teacher by one prompt, two sampling steps and one timestep."""
    prompts = plugin.parent / "prompts.txt"
    prompts.write_text("a red circle on cream\n")
    return workbench.profile(
        "demo",
        prompts=prompts,
        timesteps=1,
        sampling_steps=2,
        out=plugin.parent / "map.json",
        **options,
    )
