"""Models and numbers: what a student says of its teacher, and models that predict nothing yet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Run, only_json
from tests.models.test_stored_forms import STEM
from tests.tiny import tiny_transformer
from workbench import models, surgery
from workbench.models.lora_files import read_lora
from workbench.records import BadInput, Plan, Span
from workbench.surgery.lora import Move, moved
from workbench.tasks.lineage import lineage
from workbench.workspace.store import Store


def plan_of(teacher: Path, file: Path) -> Path:
    """Four blocks to three."""
    spans = [Span(blocks=(0, 1), init="mean"), Span(blocks=(2, 2)), Span(blocks=(3, 3))]
    return Plan(
        teacher=str(teacher), family="qwenimage", stacks={"transformer_blocks": spans}
    ).save(file)


def with_origin(folder: Path) -> None:
    """Say in every config of a pipeline from where it was loaded, as save_pretrained does."""
    for file in [*folder.glob("*/config.json"), folder / "model_index.json"]:
        config = json.loads(file.read_text())
        file.unlink()
        file.write_text(json.dumps({**config, "_name_or_path": "/home/jane/secret/model"}))


def test_no_config_of_a_student_has_a_path_of_the_machine(
    command: Run, pipeline: Path, tmp_path: Path
) -> None:
    with_origin(pipeline)
    out = tmp_path / "student"
    only_json(command("build", plan_of(pipeline, tmp_path / "plan.yaml"), "-o", out, "--json"))
    texts = [*out.glob("*/*.json"), out / "model_index.json", out / "README.md"]
    assert len(texts) > 4
    for file in texts:
        assert "jane" not in file.read_text(), file
    assert str(tmp_path) not in (out / "README.md").read_text()
    assert "jane" in (pipeline / "vae" / "config.json").read_text()  # the teacher stays as it was


def test_a_teacher_that_moved_is_found_by_its_weights(
    command: Run, home: Path, pipeline: Path, tmp_path: Path
) -> None:
    file = pipeline / "transformer" / f"{STEM}.safetensors"
    tensors = load_file(file)
    file.unlink()
    save_file({name: x + 1 for name, x in tensors.items()}, file)  # of no other test
    out = tmp_path / "student"
    only_json(command("build", plan_of(pipeline, tmp_path / "plan.yaml"), "-o", out, "--json"))
    moved = Path(shutil.move(pipeline, tmp_path / "elsewhere"))
    spec = tmp_path / "distill.yaml"
    spec.write_text("stages:\n  - {name: one, steps: 1, losses: {output: {weight: 1}}}\n")
    distill = ["distill", out, "--spec", spec, "-o", tmp_path / "trained", "--estimate"]
    lost = command(*distill)
    assert lost.returncode == 2 and "workbench info" in lost.stderr
    only_json(command("info", moved, "--json"))
    found = lineage(str(out), Store(home / "workspace")).teacher
    assert found.path == moved


def test_a_model_that_predicts_zero_is_one_line(
    command: Run, pipeline: Path, tmp_path: Path
) -> None:
    file = pipeline / "transformer" / f"{STEM}.safetensors"
    tensors = load_file(file)
    file.unlink()
    zeroed = {
        name: torch.zeros_like(x) if name.startswith("proj_out") else x
        for name, x in tensors.items()
    }
    save_file(zeroed, file)
    out = tmp_path / "map.json"
    done = command(
        *["profile", pipeline, "-o", out, "--steps", "2", "--timesteps", "1", "--size", "32"],
        *["--edits", "drop", "--prompts", prompts(tmp_path), "--guidance", "1", "--json"],
    )
    assert done.returncode == 2 and not out.exists()
    assert "predicts zero" in done.stderr


def prompts(folder: Path) -> Path:
    file = folder / "prompts.txt"
    file.write_text("a red circle\n")
    return file


PICTURES = ["QwenImageEditPipeline", "FluxFillPipeline", "QwenImageImg2ImgPipeline"]


@pytest.mark.parametrize("name", PICTURES)
def test_a_pipeline_that_needs_a_picture_is_described_and_built(
    command: Run, pipeline: Path, tmp_path: Path, name: str
) -> None:
    index = pipeline / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": name}))
    only_json(command("info", pipeline, "--json"))
    out = tmp_path / "student"
    only_json(command("build", plan_of(pipeline, tmp_path / "plan.yaml"), "-o", out, "--json"))
    done = command("profile", pipeline, "--steps", "2")
    assert done.returncode == 2 and "--inputs" in done.stderr


def test_a_teachers_lora_fits_its_depth_pruned_student(tmp_path: Path) -> None:
    """Fused into the teacher before the cut, or moved to the student's blocks and fused there."""
    peft = pytest.importorskip("peft")
    spans = [Span(blocks=(0, 0)), Span(blocks=(1, 2), init="last"), Span(blocks=(3, 3))]
    plan = Plan(teacher="tiny", family="qwenimage", stacks={"transformer_blocks": spans})
    student = surgery.student_transformer(tiny_transformer(depth=4), plan)
    teacher = tiny_transformer(depth=4)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    teacher.add_adapter(config)
    save_file(peft.get_peft_model_state_dict(teacher), tmp_path / "lora.safetensors")
    teacher.fuse_lora()
    teacher.unload_lora()
    shapes = {name: list(tensor.shape) for name, tensor in teacher.state_dict().items()}
    lora = read_lora(tmp_path / "lora.safetensors", "qwenimage", shapes)
    for module, pair in moved(Move(lora, plan, shapes))[0].pairs.items():
        student.get_submodule(module).weight.data += pair.b @ pair.a
    expected = surgery.student_transformer(teacher, plan).state_dict()
    got = student.state_dict()
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=1e-5), name


def test_one_step_of_a_sampler_that_needs_two_is_one_line(pipeline: Path) -> None:
    pipe = models.load_pipeline(pipeline)
    with pytest.raises(BadInput) as refused:
        list(models.generate(pipe, ["a circle"], seeds=[0], steps=1, guidance=1, size=32))
    assert refused.value.found.startswith("1 step of a FlowMatchEulerDiscreteScheduler")
