"""Code in a folder does not run: our own class reads our students, whichever version wrote them;
what it cannot hold is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.refusals import refused
from tests.tiny import tiny_inputs
from workbench import models, students


def answer(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return models.load_transformer(folder)(**tiny_inputs())[0]


@pytest.mark.parametrize("renamed", [False, True], ids=["same name", "another version's name"])
def test_a_student_of_another_version_loads_without_its_code(
    student_folder: Path, tmp_path: Path, renamed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    other, name = tmp_path / "other", students.module_name("qwenimage")
    shutil.copytree(student_folder, other)
    if renamed:
        (other / "transformer" / f"{name}.py").unlink()
        name = "modeling_hybrid_qwenimage_0"
        index = json.loads((other / "model_index.json").read_text())
        (other / "model_index.json").write_text(
            json.dumps(index | {"transformer": [name, index["transformer"][1]]})
        )
    (other / "transformer" / f"{name}.py").write_text("raise SystemExit")
    pipe, transformer = models.load_pipeline(other), models.load_transformer(other)
    assert type(pipe.transformer) is type(transformer) is students.student_class("qwenimage")
    assert torch.equal(answer(other), answer(student_folder))
    assert models.describe(other, "x").parameters == models.describe(student_folder, "x").parameters
    assert capsys.readouterr().err.count(f"{name}.py is of another version; it is not run") == 1


def changed(
    student_folder: Path, other: Path, tensors: dict[str, torch.Tensor | None], **config: object
) -> Path:
    """A copy of the student with other tensors and config, as a version to come might write it; its
    code leaves a mark when it runs.
    """
    shutil.copytree(student_folder, other)
    inner = other / "transformer"
    held = json.loads((inner / "config.json").read_text())
    (inner / "config.json").write_text(json.dumps(held | config))
    [file] = inner.glob("*.safetensors")
    state = load_file(file) | tensors
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, file)
    module = inner / f"{students.module_name('qwenimage')}.py"
    module.write_text(module.read_text() + f"\n\nopen({str(other / 'ran')!r}, 'w').write('x')\n")
    return other


def test_what_our_class_cannot_hold_is_refused_and_does_not_run(
    student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever card.json says. Allowed explicitly, it runs."""
    kept = "transformer_blocks.0.attn.to_q.weight"
    cases = [
        ({}, {"narrow_blocks": [1]}, "'narrow_blocks'"),
        ({"transformer_blocks.0.new": torch.zeros(1)}, {}, "transformer_blocks.0.new"),
        ({kept: None}, {}, kept),
        ({kept: torch.zeros(1)}, {}, f"{kept} is [1]"),
        ({}, {"removed_parts": {"transformer_blocks.0": ["text.new"]}}, ""),
    ]
    for number, (tensors, config, value) in enumerate(cases):
        other = changed(student_folder, tmp_path / str(number), tensors, **config)  # type: ignore[arg-type]
        for load in (models.load_transformer, models.load_pipeline):
            with refused(found=value, do="WORKBENCH_TRUST_REMOTE_CODE"):
                load(other)
        assert not (other / "ran").exists()
    unused = changed(student_folder, tmp_path / "unused", {}, narrow_blocks=[], widths=None)
    assert models.load_transformer(unused) and not (unused / "ran").exists()
    monkeypatch.setenv("WORKBENCH_TRUST_REMOTE_CODE", "1")
    assert models.load_transformer(unused) and not (unused / "ran").exists(), (
        "our class can hold it"
    )
    models.load_transformer(tmp_path / "0")
    assert (tmp_path / "0" / "ran").exists()
    models.load_pipeline(tmp_path / "0")


def test_foreign_classes_do_not_run(teacher_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(teacher_folder, other)
    config = json.loads((other / "transformer" / "config.json").read_text())
    (other / "transformer" / "config.json").write_text(
        json.dumps(config | {"_class_name": "Strange"})
    )
    (other / "transformer" / "strange.py").write_text("raise SystemExit")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(
        json.dumps(index | {"transformer": ["strange", "Strange"]})
    )
    for load in (models.load_transformer, models.load_pipeline):
        with refused(found="Strange", do="WORKBENCH_TRUST_REMOTE_CODE"):
            load(other)
