"""A teacher's LoRA on its student, against the student of a teacher that the LoRA was added to."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.refusals import refused
from tests.tiny_families import family_inputs, family_model
from workbench import models, surgery, tasks
from workbench.models.checkpoints import Reader
from workbench.models.headers import headers
from workbench.records import Plan
from workbench.specs import LoraSpec

Students = Callable[[int], tuple[Path, Path]]
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]
SCALE = 0.5
DEPTH = {"transformer_blocks": [{"blocks": [0, 1], "init": "last"}, {"blocks": [2, 3]}]}
EDITED = {
    "transformer_blocks": [
        {"blocks": [0, 1], "init": "mean", "gain": 2, "modulation": {"rank": 3}},
        {"blocks": 2, "stream": "single", "gain": 1.5},
        {"blocks": 3, "drop": ["text.mlp", "attn"], "modulation": {"rank": 4}},
    ]
}
FLUX = {
    "transformer_blocks": [{"blocks": [0, 1], "init": "mean", "gain": 2}, {"blocks": 2}],
    "single_transformer_blocks": [{"blocks": 0, "drop": ["mlp"]}, {"blocks": [1, 2]}],
}
CASES = [("qwenimage", DEPTH), ("qwenimage", EDITED), ("flux", FLUX)]


def random_pairs(model: torch.nn.Module, rank: int = 2) -> Pairs:
    """A LoRA of every linear of the blocks, and of the output linear."""
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ("_blocks." in name or name == "proj_out"):
            rows, columns = module.weight.shape
            a = torch.randn(rank, columns, generator=generator)
            pairs[name] = (a, torch.randn(rows, rank, generator=generator) * rows**-0.5)
    return pairs


def built(model: torch.nn.Module, family: str, stacks: dict[str, Any], folder: Path) -> Path:
    model.save_pretrained(folder / "teacher")
    teacher = models.describe(folder / "teacher", "tiny")
    plan = Plan.parse({"teacher": "tiny", "family": family, "stacks": stacks}, "plan")
    list(surgery.build(folder / "teacher", teacher, plan, folder / "student"))
    return folder / "student"


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Students:
    """The students of a case's teacher and of the teacher with the LoRA added, built once."""

    @cache
    def of_case(number: int) -> tuple[Path, Path]:
        family, stacks = CASES[number]
        folder = tmp_path_factory.mktemp(f"case-{number}")
        model = family_model(family)
        plain = built(model, family, stacks, folder / "plain")
        return plain, built(added(model, random_pairs(model)), family, stacks, folder / "fused")

    return of_case


def added(model: torch.nn.Module, pairs: Pairs, scale: float = SCALE) -> torch.nn.Module:
    """A copy of the model with the LoRA added to its weights."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, (a, b) in pairs.items():
            model.get_submodule(name).weight += scale * b @ a
    return model


def moved(
    file: Path, student: Path, folder: Path
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    spec = LoraSpec(lora=str(file), student=str(student), out=str(folder / "moved.safetensors"))
    result: dict[str, Any] = tasks.run("lora", spec, folder / "workspace")
    return load_file(result["lora"]), result


def write(pairs: Pairs, path: Path) -> Path:
    """As diffusers writes a LoRA of alpha = SCALE x rank."""
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"transformer.{name}.lora_A.weight"] = a
        tensors[f"transformer.{name}.lora_B.weight"] = b
    scales = {"transformer.lora_alpha": SCALE * 2, "transformer.r": 2}
    save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": json.dumps(scales)})
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with Reader(folder) as reader:
        return {name: reader.tensor(name) for name in headers(folder)}


def check_equal(student: Path, fused: Path, lora: dict[str, torch.Tensor]) -> None:
    """Student + its LoRA is the student of the teacher + LoRA, in every weight."""
    before = weights(student)
    for name, tensor in weights(fused).items():
        module, _, end = name.rpartition(".")
        found = before[name].double()
        a = lora.get(f"transformer.{module}.lora_A.weight")
        b = lora.get(f"transformer.{module}.lora_B.weight")
        if end == "weight" and a is not None and b is not None:
            found = found + b.double() @ a.double()
        offset = lora.get(f"transformer.{module}.lora_B.bias")
        if end == "bias" and offset is not None:
            found = found + offset.double()
        assert torch.allclose(found, tensor.double(), atol=1e-5), name


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_moved_lora_is_what_the_plan_makes_of_the_change(
    case: int, students: Students, tmp_path: Path
) -> None:
    pairs = random_pairs(family_model(CASES[case][0]))
    student, fused = students(case)
    lora, result = moved(write(pairs, tmp_path / "lora.safetensors"), student, tmp_path)
    check_equal(student, fused, lora)
    dropped = sum(result["dropped"].values())
    accounted = result["kept"] + result["merged"] + result["projected"] + dropped
    assert accounted == result["pairs"] == len(pairs)


def test_diffusers_loads_the_moved_lora_and_predicts_as_the_fused_student(
    students: Students, tmp_path: Path
) -> None:
    pairs = random_pairs(family_model("qwenimage"))
    student, fused = students(CASES.index(("qwenimage", EDITED)))
    moved(write(pairs, tmp_path / "lora.safetensors"), student, tmp_path)
    with_lora, other = models.load_transformer(student), models.load_transformer(fused)
    with_lora.load_lora_adapter(str(tmp_path / "moved.safetensors"), prefix="transformer")
    predictions = []
    with torch.no_grad():
        for loaded in (with_lora, other):
            predictions.append(models.prediction(loaded(**family_inputs("qwenimage")), loaded))
    assert torch.allclose(*predictions, atol=1e-4)


def test_kohyas_joined_pairs_are_split_as_the_checkpoint_is(tmp_path: Path) -> None:
    """q, k and v of FLUX in one pair, q, k, v and the MLP in another, shift and scale exchanged;
    the rows are counted here by hand.
    """
    model = family_model("flux")
    width = 32
    generator = torch.Generator().manual_seed(1)
    rows = {
        "double_blocks_1_img_attn_qkv": (3 * width, width),
        "single_blocks_2_linear1": (7 * width, width),
        "final_layer_adaLN_modulation_1": (2 * width, width),
    }
    tensors, changes = {}, {}
    for name, (out, columns) in rows.items():
        a = torch.randn(4, columns, generator=generator)
        b = torch.randn(out, 4, generator=generator)
        tensors[f"lora_unet_{name}.lora_down.weight"] = a
        tensors[f"lora_unet_{name}.lora_up.weight"] = b
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(1.0)
        changes[name] = b @ a / 4
    tensors["lora_te1_text_model_x.lora_down.weight"] = torch.ones(2, 2)
    save_file(tensors, tmp_path / "kohya.safetensors")
    fused = copy.deepcopy(model)
    qkv, linear1, last = changes.values()
    block, single = fused.transformer_blocks[1], fused.single_transformer_blocks[2]
    with torch.no_grad():
        for number, linear in enumerate((block.attn.to_q, block.attn.to_k, block.attn.to_v)):
            linear.weight += qkv[number * width : (number + 1) * width]
        for number, linear in enumerate((single.attn.to_q, single.attn.to_k, single.attn.to_v)):
            linear.weight += linear1[number * width : (number + 1) * width]
        single.proj_mlp.weight += linear1[3 * width :]
        fused.norm_out.linear.weight += torch.cat([last[width:], last[:width]])
    stacks = {
        "transformer_blocks": [{"blocks": [0, 1], "init": "last"}, {"blocks": 2}],
        "single_transformer_blocks": [{"blocks": [0, 2], "init": "mean"}],
    }
    student = built(model, "flux", stacks, tmp_path / "plain")
    lora, result = moved(tmp_path / "kohya.safetensors", student, tmp_path)
    check_equal(student, built(fused, "flux", stacks, tmp_path / "fused"), lora)
    assert result["text_encoder_tensors"] == 1
    assert "lora_te1_text_model_x.lora_down.weight" in lora


def test_what_is_dropped_is_counted_with_the_reason(students: Students, tmp_path: Path) -> None:
    model = family_model("qwenimage")
    pairs = {
        name: pair
        for name, pair in random_pairs(model).items()
        if name.startswith(("transformer_blocks.1.attn", "transformer_blocks.2.attn"))
    }
    student, _ = students(0)
    file = write(pairs, tmp_path / "lora.safetensors")
    _, result = moved(file, student, tmp_path)
    assert result["kept"] == len(pairs)  # the first span starts as its last block
    one = {name: pair for name, pair in random_pairs(model).items() if ".3.attn.to_q" in name}
    tensors = load_file(write({**pairs, **one}, file))
    tensors["transformer.transformer_blocks.0.attn.to_q.hada_w1_a"] = torch.ones(2, 2)
    save_file(tensors, file)
    _, result = moved(file, student, tmp_path)
    assert result["dropped"] == {
        "of blocks that the student does not have": 1,
        "not of this model (not a LoRA pair)": 1,
    }
    [change] = [b @ a for a, b in one.values()]
    every = sum(float((b @ a).square().sum()) for a, b in [*pairs.values(), *one.values()])
    assert result["lost_share"] == pytest.approx(float(change.square().sum()) / every, rel=1e-4)


def test_a_lora_of_another_model_and_a_teacher_are_refused(
    students: Students, tmp_path: Path
) -> None:
    student, _ = students(0)
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with refused(found="no LoRA pair for a qwenimage"):
        moved(tmp_path / "other.safetensors", student, tmp_path)
    with refused(found="no card.json"):
        moved(tmp_path / "other.safetensors", student.parent / "teacher", tmp_path)
    assert not (tmp_path / "moved.safetensors").exists()
