"""Quantised students: each form is read by the library that people load it with, and both agree on
every number. torchao and bitsandbytes are not part of the test environment, which they would slow
down; with them on the path their tests run too.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.students.helpers import build
from tests.tiny import tiny_inputs
from workbench import models, students, tasks
from workbench.models.quantized import gguf_file, stored
from workbench.models.quantized.packing import INT4_GROUP, PACKINGS
from workbench.plans import identity, kept_blocks
from workbench.records import Card, Plan, Row, SensitivityMap
from workbench.specs.quantized_forms import QUANTIZED_FORMS
from workbench.students.int4 import int4

STACK = "transformer_blocks"
# whole, single-stream, without a part, with its modulation in factors
MIXED = Plan.parse(
    {
        "teacher": "tiny",
        "family": "qwenimage",
        "stacks": {
            STACK: [
                {"blocks": 0},
                {"blocks": [1, 2], "init": "mean", "stream": "single"},
                {"blocks": 3, "drop": ["text.mlp"]},
                {"blocks": [4, 5], "modulation": {"rank": 4}},
            ]
        },
    },
    "test",
)
FACTORS = f"{STACK}.3.img_mod.1"


@pytest.fixture(scope="module")
def mixed(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixed") / "student"
    build(teacher_folder, MIXED, out, dtype="bf16")
    return out


@pytest.fixture(scope="module")
def written(mixed: Path) -> Any:
    """A form's name -> the mixed student in it, written once."""
    known: dict[str, Path] = {}

    def folder(form: str) -> Path:
        if form.startswith("gguf"):
            pytest.importorskip("gguf")
        if form not in known:
            known[form] = mixed.parent / form
            run("quantize", mixed.parent, student=str(mixed), to=form, out=str(known[form]))
        return known[form]

    return folder


def run(verb: str, at: Path, **spec: Any) -> dict[str, Any]:
    return tasks.run(verb, spec, at / "workspace", device="cpu")


def unpacked(folder: Path) -> dict[str, torch.Tensor]:
    inner = folder / "transformer"
    found = stored.quantization_of(inner)
    assert found is not None
    return dict(stored.weights(inner, found))


def dense(folder: Path) -> dict[str, torch.Tensor]:
    return models.load_transformer(folder, dtype=torch.bfloat16).state_dict()


# --- each form, a second way ----------------------------------------------------------------------


def levels_apart(form: str, weight: torch.Tensor) -> torch.Tensor:
    """How far the unpacked weight is from the weight, in the distances between levels."""
    packing = PACKINGS[form]
    name = "a.weight"
    values = packing.unpack(name, tuple(weight.shape), packing.pack(name, weight))
    step = {"int8": weight.abs().amax(1, keepdim=True) / 127}.get(form)
    if step is None:
        groups = weight.reshape(weight.shape[0], -1, INT4_GROUP)
        step = ((groups.amax(-1) - groups.amin(-1)) / 15).repeat_interleave(INT4_GROUP, 1)
    return (values - weight).abs() / step


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_weight_goes_to_the_nearest_level(form: str) -> None:
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
    # scale and offset of int4 are stored in bfloat16, which is up to 8 levels x 0.4 % apart
    assert levels_apart(form, weight).max() < (0.501 if form == "int8" else 0.55)


def test_int4_is_stored_as_its_kernel_reads_it() -> None:
    """By loops: even columns in the low half, signed; scale and offset of (group, row)."""
    weight = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))
    packing = PACKINGS["int4"]
    parts = {name: x.float().numpy() for name, x in packing.pack("a.weight", weight).items()}
    by_hand = np.zeros((3, 256), dtype=np.float32)
    for row in range(3):
        for column in range(256):
            byte = int(parts["a._weight_qdata"][row, column // 2]) % 256
            code = byte // 16 if column % 2 else byte % 16
            code -= 16 if code > 7 else 0
            scale = parts["a._weight_scale"][column // 128, row]
            by_hand[row, column] = code * scale + parts["a._weight_zero_point"][column // 128, row]
    values = packing.unpack("a.weight", (3, 256), packing.pack("a.weight", weight))
    np.testing.assert_allclose(values.numpy(), by_hand, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", ["int8", "int4", "nf4"])
def test_what_is_written_is_what_was_announced(form: str) -> None:
    packing = PACKINGS[form]
    parts = packing.pack("a.weight", torch.randn(5, 128))
    announced = packing.layout("a.weight", (5, 128))
    assert {name: (x.dtype, tuple(x.shape)) for name, x in parts.items()} == announced


# --- the folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", QUANTIZED_FORMS)
def test_what_is_quantised_and_what_stays(form: str, written: Any, mixed: Path) -> None:
    folder = written(form)
    before, after = dense(mixed), unpacked(folder)
    assert before.keys() == after.keys()
    changed = {
        name for name in before if not torch.equal(before[name].float(), after[name].float())
    }
    group = QUANTIZED_FORMS[form].group
    expected = set()
    model = models.load_transformer(mixed)
    for name, module in model.named_modules():
        whole = isinstance(module, nn.Linear) and module.in_features % group == 0
        if whole and name.startswith(STACK) and not name.startswith(FACTORS):
            expected.add(f"{name}.weight")
    # the text modulation's factors, too
    expected = {name for name in expected if not name.endswith((".down.weight", ".up.weight"))}
    assert changed == expected
    found = Card.load(folder / "card.json").quantization
    assert found is not None
    assert found.packed == sum(before[name].numel() for name in expected)
    assert "low-rank factors of modulation" in found.kept


@pytest.mark.parametrize("form", QUANTIZED_FORMS)
def test_a_quantised_student_loads_here_and_computes_what_its_weights_say(
    form: str, written: Any, mixed: Path
) -> None:
    folder = written(form)
    model = models.load_pipeline(folder, dtype="fp32").transformer
    by_hand = models.load_transformer(mixed, dtype="fp32")
    by_hand.load_state_dict({name: x.float() for name, x in unpacked(folder).items()})
    with torch.no_grad():
        ours = model(**tiny_inputs())[0]
        theirs = by_hand(**tiny_inputs())[0]
        before = models.load_transformer(mixed, dtype="fp32")(**tiny_inputs())[0]
    assert torch.equal(ours, theirs)
    change = float((ours - before).norm() / before.norm())
    assert 0 < change < (0.05 if "8" in form else 0.5)


def test_q4_0_is_the_rounding_of_the_edit_int4(written: Any, mixed: Path) -> None:
    """gguf 0.19 rounds products to float32, so that a weight halfway between two levels may go to
    the other one.
    """
    before, after = dense(mixed), unpacked(written("gguf-q4_0"))
    name = f"{STACK}.1.attn.to_q.weight"
    expected = int4(before[name].float())
    apart = (after[name] - expected).reshape(-1, 32).abs()
    level = expected.reshape(-1, 32).abs().amax(1, keepdim=True) / 7
    assert (apart > 0).float().mean() < 0.02
    assert (apart <= level).all()


@pytest.mark.parametrize("form", ["gguf-q8_0", "gguf-q4_0"])
def test_diffusers_reads_the_gguf_file(form: str, written: Any) -> None:
    from diffusers import GGUFQuantizationConfig

    inner = written(form) / "transformer"
    model = students.student_class("qwenimage").from_single_file(
        str(inner / gguf_file.NAME),
        config=str(inner),
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        torch_dtype=torch.float32,
    )
    ours = models.load_transformer(inner, dtype="fp32")
    with torch.no_grad():
        torch.testing.assert_close(
            model(**tiny_inputs())[0], ours(**tiny_inputs())[0], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_torchao_reads_the_folder(form: str, written: Any) -> None:
    pytest.importorskip("torchao")
    inner = written(form) / "transformer"
    model = students.student_class("qwenimage").from_pretrained(inner, torch_dtype=torch.bfloat16)
    ours = unpacked(inner.parent)
    seen = 0
    for name, parameter in model.named_parameters():
        kind = type(parameter.data).__name__
        if kind == "Int8Tensor":
            assert torch.equal(parameter.data.dequantize(torch.float32), ours[name])
            seen += 1
        elif kind == "Int4Tensor":  # it has no way back to a plain tensor
            parts = ("qdata", "scale", "zero_point")
            held = {f"a._weight_{part}": getattr(parameter.data, part) for part in parts}
            shape = tuple(parameter.shape)
            assert torch.equal(PACKINGS["int4"].unpack("a.weight", shape, held), ours[name])
            seen += 1
    found = stored.quantization_of(inner)
    assert found is not None
    assert seen > 3
    if form == "int8":
        with torch.no_grad():
            inputs = {
                key: x.bfloat16() if torch.is_tensor(x) and x.is_floating_point() else x
                for key, x in tiny_inputs().items()
            }
            theirs = model(**inputs)[0].float()
            mine = models.load_transformer(inner, dtype="bf16")(**inputs)[0].float()
        assert float((theirs - mine).norm() / mine.norm()) < 0.05


def test_bitsandbytes_reads_the_folder(written: Any) -> None:
    """Its tensors, not through diffusers, which wants a GPU."""
    bnb = pytest.importorskip("bitsandbytes")
    from safetensors.torch import load_file

    inner = written("nf4") / "transformer"
    held = load_file(inner / "diffusion_pytorch_model.safetensors")
    ours = unpacked(inner.parent)
    names = [name.removesuffix(".absmax") for name in held if name.endswith(".absmax")]
    assert len(names) > 3
    for name in names:
        stats = {key: x for key, x in held.items() if key.startswith(f"{name}.")}
        weight = bnb.nn.Params4bit.from_prequantized(
            data=held[name], quantized_stats=stats, device="cpu"
        )
        values = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
        assert values.dtype == torch.bfloat16
        assert torch.equal(values, ours[name].bfloat16())


def test_bitsandbytes_would_replace_the_linears_that_are_packed(written: Any, mixed: Path) -> None:
    """The rule by which diffusers chooses what to replace: its own list of what to skip."""
    config = json.loads((written("nf4") / "transformer" / "config.json").read_text())
    skipped = config["quantization_config"]["llm_int8_skip_modules"]
    before, after = dense(mixed), unpacked(written("nf4"))
    model = models.load_transformer(mixed)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        local = name.rpartition(".")[2]
        left = local in skipped or any(key == name or f"{key}." in name for key in skipped)
        weight = f"{name}.weight"
        assert left == torch.equal(before[weight].float(), after[weight].float()), name


@pytest.mark.parametrize("form", ["gguf-q4_0", "nf4"])
def test_the_bundled_teacher_takes_a_third_of_bf16(form: str, tmp_path: Path) -> None:
    if form.startswith("gguf"):
        pytest.importorskip("gguf")
    result = run("quantize", tmp_path, student="demo-12", to=form, out=str(tmp_path / "small"))
    inner = tmp_path / "small" / "transformer"
    files = [file for file in inner.iterdir() if file.suffix in (".gguf", ".safetensors")]
    assert result["bytes"] == sum(file.stat().st_size for file in files)
    assert result["ratio"] == result["bytes"] / result["source_bytes"] <= 0.33
    described = run("info", tmp_path, teacher=str(tmp_path / "small"))
    assert described["quantization"]["to"] == form
    assert described["parameters"] == run("info", tmp_path, teacher="demo-12")["parameters"]


# --- blocks that are kept -------------------------------------------------------------------------


def test_blocks_are_quantised_while_the_sum_of_their_scores_allows() -> None:
    scores = {(STACK, 0): 0.5, (STACK, 1): 0.1, (STACK, 2): 0.2}
    assert kept_blocks(scores, 0.31) == [(STACK, 0)]
    assert kept_blocks(scores, 0.29) == [(STACK, 0), (STACK, 2)]
    assert kept_blocks(scores, 1.0) == []


def map_of(folder: Path, edit: str = "int4", fingerprint: str = "") -> SensitivityMap:
    teacher = models.describe(folder, "x")
    rows = [Row(stack=STACK, block=block, edit=edit, score=0.1 * block) for block in range(4)]
    return SensitivityMap(
        teacher=str(folder),
        fingerprint=fingerprint or teacher.fingerprint,
        family="qwenimage",
        rows=rows,
    )


def test_the_blocks_that_a_map_names_stay(mixed: Path, tmp_path: Path) -> None:
    map_of(mixed).save(tmp_path / "map.json")
    out = tmp_path / "kept"
    run(
        "quantize",
        tmp_path,
        student=str(mixed),
        to="nf4",
        out=str(out),
        keep_by=str(tmp_path / "map.json"),
        at_most=0.15,
    )
    before, after = dense(mixed), unpacked(out)
    changed = {
        name.split(".")[1]
        for name in before
        if not torch.equal(before[name].float(), after[name].float())
    }
    assert changed == {"0", "1"}
    found = Card.load(out / "card.json").quantization
    assert found is not None and found.kept_blocks == [f"{STACK}.2", f"{STACK}.3"]
    assert f"`{STACK}.2`" in (out / "README.md").read_text()


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_quantised_is_refused_before_a_file_is_written(
    mixed: Path, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantize(**spec: Any) -> None:
        run("quantize", tmp_path, **{"student": str(mixed), "to": "nf4", **spec})

    with refused(found="q5_1", expected="gguf-q4_0"):
        quantize(to="q5_1")
    with refused(found="quantised (nf4)", do=str(mixed)):
        quantize(student=str(written("nf4")), to="int8")
    with refused(found="--at-most alone"):
        quantize(at_most=1.0)
    map_of(mixed, fingerprint="0" * 12).save(tmp_path / "other.json")
    with refused(found="0" * 12, do="workbench profile"):
        quantize(keep_by=str(tmp_path / "other.json"), at_most=1.0)
    map_of(mixed, edit="drop").save(tmp_path / "drop.json")
    with refused(found="the edits drop", expected="int4"):
        quantize(keep_by=str(tmp_path / "drop.json"), at_most=1.0)
    with refused(found="is (part of) the student"):
        quantize(out=str(mixed / "inside"))
    map_of(mixed).save(tmp_path / "map.json")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with refused(found="gguf is not installed", do="dit-workbench[gguf]"):
        quantize(to="gguf-q4_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "drop.json",
        "map.json",
        "other.json",
        "workspace",
    ]


def test_verbs_that_need_the_weights_name_the_student_to_use(
    written: Any, mixed: Path, tmp_path: Path
) -> None:
    folder = written("nf4")
    plan = identity(models.describe(folder, str(folder)))
    plan.save(tmp_path / "plan.yaml")
    with refused(found="quantised (nf4)", do=str(mixed)):
        run("build", tmp_path, plan=str(tmp_path / "plan.yaml"), out=str(tmp_path / "b"))
    with refused(found="quantised (nf4)", do=str(mixed)):
        run("distill", tmp_path, student=str(folder), recipe="workbench", out=str(tmp_path / "d"))
    with refused(found="quantised (nf4)", do=str(mixed)):
        run("release", tmp_path, student=str(folder), out=str(tmp_path / "r"))


def test_weights_that_others_quantised_are_still_refused(written: Any, tmp_path: Path) -> None:
    copy = tmp_path / "foreign"
    shutil.copytree(written("nf4") / "transformer", copy)
    with refused(found="says bitsandbytes", do="unquantised"):
        models.describe(copy, "x")
