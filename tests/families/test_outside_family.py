"""A family registered from outside: every verb takes its models, nothing else is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.outside_family import OutsideTransformer
from tests.tiny import tiny_inputs, tiny_transformer
from workbench import models, register, tasks
from workbench.families import FAMILIES
from workbench.plugins import unregister
from workbench.records import BadInput, Plan

INPUTS = tiny_inputs()


@pytest.fixture
def outside() -> Iterator[str]:
    """The family `outside`: the row of Qwen-Image under another name, for another class."""
    row = replace(
        FAMILIES["qwenimage"],
        name="outside",
        transformer="OutsideTransformer",
        library="tests.outside_family",
    )
    register("family", "outside", row)
    yield "outside"
    unregister("family", "outside")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside") / "teacher"
    tiny = tiny_transformer(depth=4, heads=2)
    model = OutsideTransformer.from_config(dict(tiny.config))
    model.load_state_dict(tiny.state_dict())
    model.save_pretrained(folder)
    return folder


def test_describe_plan_and_build(outside: str, folder: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    info = tasks.run("info", {"teacher": str(folder)}, workspace, device="cpu")
    assert info["family"] == outside
    assert info["class"] == "OutsideTransformer"
    plan = tmp_path / "plan.yaml"
    spec = {"teacher": str(folder), "keep": 2, "out": str(plan)}
    planned = tasks.run("plan", spec, workspace, device="cpu")
    assert Plan.load(plan).family == outside
    student = tmp_path / "student"
    built = tasks.run("build", {"plan": str(plan), "out": str(student)}, workspace, device="cpu")
    assert built["parameters"] == planned["parameters"]
    assert built["stock"]
    loaded = models.load_transformer(student)
    assert type(loaded) is OutsideTransformer
    assert len(loaded.transformer_blocks) == 2
    with torch.no_grad():
        assert models.prediction(loaded(**INPUTS)).isfinite().all()


def test_a_student_with_custom_blocks(outside: str, folder: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"teacher: {folder}\nfamily: {outside}\nstacks:\n  transformer_blocks:\n"
        "    - {blocks: 0}\n    - {blocks: [1, 2], init: mean, gain: 2}\n"
        "    - {blocks: 3, stream: single}\n"
    )
    student = tmp_path / "student"
    built = tasks.run("build", {"plan": str(plan), "out": str(student)}, tmp_path, device="cpu")
    assert not built["stock"]
    [file] = student.glob("modeling_*.py")
    assert "from tests.outside_family import OutsideTransformer" in file.read_text()
    loaded = models.load_transformer(student)
    assert isinstance(loaded, OutsideTransformer)
    with torch.no_grad():
        assert models.prediction(loaded(**INPUTS)).isfinite().all()


def test_without_the_row_the_class_is_unknown(folder: Path) -> None:
    with pytest.raises(BadInput) as refused:
        models.describe(folder, "x")
    assert "OutsideTransformer" in refused.value.found
    assert "QwenImageTransformer2DModel" in refused.value.expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"single_stream_layers": [9]}, "block 9 of 3"),
        ({"single_stream_layers": [True]}, "block True"),
        ({"single_stream_layers": "all"}, "another type"),
        ({"removed_parts": {"transformer_blocks.0": ["text.new"]}}, "'text.new'"),
        ({"removed_parts": {"transformer_blocks.7": ["mlp"]}}, "'transformer_blocks.7'"),
        ({"removed_parts": {"nowhere.0": ["mlp"]}}, "'nowhere.0'"),
        ({"removed_parts": {"transformer_blocks.0": "mlp"}}, "'mlp'"),
    ],
)
def test_changes_of_blocks_that_do_not_exist_are_bad_input(
    changes: dict[str, object], named: str, folder: Path, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"_class_name": "HybridQwenImageTransformer2DModel", "num_layers": 3, **changes}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    with pytest.raises(BadInput) as refused:
        models.describe(file, "x")
    assert named in refused.value.found


def test_a_fault_of_ours_in_building_a_student_is_a_traceback(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise KeyError("a bug")

    config = json.loads((folder / "config.json").read_text())
    config |= {
        "_class_name": "HybridQwenImageTransformer2DModel",
        "removed_parts": {"transformer_blocks.0": ["mlp"]},
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    monkeypatch.setattr("workbench.students.hybrid_class.remove_parts", broken)
    with pytest.raises(KeyError, match="a bug"):
        models.describe(file, "x")
