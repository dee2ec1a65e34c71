"""Files for ComfyUI, stable-diffusion.cpp and GGUF: the same numbers, and refusals with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from tests.refusals import refused
from tests.tiny import randomise
from tests.tiny_families import CONFIGS
from workbench import models, surgery, tasks
from workbench.families import FAMILIES
from workbench.families.runtimes import RUNTIMES
from workbench.models.headers import headers
from workbench.models.quantized import gguf_file
from workbench.records import Plan
from workbench.release.single_file import SingleFile, joined, split, write_single_file
from workbench.specs import ReleaseSpec

KNOWN = sorted({family for row in RUNTIMES.values() for family in row.families})


def saved(family: str, folder: Path, **changes: Any) -> Any:
    """A tiny random transformer, saved."""
    cls = getattr(diffusers, FAMILIES[family].transformer)
    torch.manual_seed(0)
    model = cls.from_config({**CONFIGS[family], **changes})
    randomise(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    return model


def written(order: SingleFile, folder: Path) -> Path:
    folder.mkdir()
    list(write_single_file(order, folder))
    return folder / order.file_name


@pytest.mark.parametrize("family", KNOWN)
def test_every_tensor_comes_back_bit_for_bit(family: str, tmp_path: Path) -> None:
    state = saved(family, tmp_path / "model").state_dict()
    runtime = "comfyui" if family in RUNTIMES["comfyui"].families else "sd.cpp"
    order = SingleFile(tmp_path / "model", runtime, "Q8_0", "student")
    stored = load_file(written(order, tmp_path / "out"))
    back = {}
    for tensor in order.tensors:
        rows = [len(state[source]) for source in tensor.sources]
        back.update(split(tensor, stored.pop(tensor.name), rows))
    assert not stored
    assert back.keys() == headers(tmp_path / "model").keys()
    assert all(torch.equal(back[name], state[name]) for name in back)


@pytest.mark.parametrize("family", ["zimage", "wan", "qwenimage"])
def test_diffusers_reads_the_single_file_as_the_same_model(family: str, tmp_path: Path) -> None:
    model = saved(family, tmp_path / "model")
    order = SingleFile(tmp_path / "model", "comfyui", "Q8_0", "student")
    path = written(order, tmp_path / "out")
    again = type(model).from_single_file(
        str(path), config=str(tmp_path / "model"), dtype=torch.bfloat16
    )
    expected = model.state_dict()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name


def test_a_gguf_file_holds_the_same_numbers_in_the_types_that_it_names(tmp_path: Path) -> None:
    state = saved("flux", tmp_path / "model").state_dict()
    order = SingleFile(tmp_path / "model", "gguf", "Q8_0", "student")
    path = written(order, tmp_path / "out")
    gguf = gguf_file.library()
    kinds = gguf_file.kinds_of(path)
    values = dict(gguf_file.read(path))
    for tensor in order.tensors:
        whole = joined(tensor, [state[source] for source in tensor.sources]).float()
        if kinds[tensor.name] == "Q8_0":
            packed = gguf.quants.quantize(whole.numpy(), gguf.GGMLQuantizationType.Q8_0)
            rounded = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
            whole = torch.from_numpy(rounded)
        assert torch.equal(values[tensor.name], whole), tensor.name
    assert kinds["double_blocks.0.img_attn.qkv.weight"] == "Q8_0"
    assert kinds["img_in.weight"] == "BF16"
    assert kinds["double_blocks.0.img_attn.qkv.bias"] == "F32"


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """FLUX students of 3 + 3 blocks with 128 numbers a head: without blocks, and with a block that
    has a part less.
    """
    root = tmp_path_factory.mktemp("students")
    wide = {"num_attention_heads": 1, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    saved("flux", root / "teacher", **wide)
    teacher = models.describe(root / "teacher", str(root / "teacher"))
    folders = {}
    for name, last in (("fewer", {"blocks": 2}), ("cut", {"blocks": 2, "drop": ["mlp"]})):
        plan = Plan.parse(
            {
                "teacher": str(root / "teacher"),
                "family": "flux",
                "stacks": {
                    "transformer_blocks": [{"blocks": [0, 1], "init": "mean"}, last],
                    "single_transformer_blocks": [{"blocks": 0}, {"blocks": [1, 2]}],
                },
            },
            "plan",
        )
        list(surgery.build(root / "teacher", teacher, plan, root / name))
        folders[name] = root / name
    return folders


def release(workspace: Path, student: Path, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = tasks.run(
        "release", ReleaseSpec(student=str(student), **options), workspace
    )
    return result


@pytest.mark.parametrize(("runtime", "end"), [("comfyui", "safetensors"), ("gguf", "gguf")])
def test_a_release_for_another_program_is_one_file_with_the_card(
    runtime: str, end: str, students: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = release(tmp_path, students["fewer"], out=str(out), runtime=runtime)
    assert f"fewer.{end}" in result["files"]
    assert not list(out.rglob("config.json"))
    readme = (out / "README.md").read_text()
    assert f"`fewer.{end}`" in readme
    assert RUNTIMES[runtime].title in readme
    assert "from_pretrained" not in readme


def test_what_does_not_load_is_refused_with_the_reason(
    students: dict[str, Path], tmp_path: Path
) -> None:
    cut, fewer = students["cut"], students["fewer"]
    with refused(found="blocks of its own", do="--fat"):
        release(tmp_path, cut, out=str(tmp_path / "out"), runtime="comfyui")
    with refused(found="num_attention_heads 24"):
        release(tmp_path, fewer, out=str(tmp_path / "out"), runtime="sd.cpp")
    with refused(found="runtime 'forge'"):
        release(tmp_path, fewer, out=str(tmp_path / "out"), runtime="forge")
    with refused(found="--space"):
        release(tmp_path, fewer, out=str(tmp_path / "out"), runtime="comfyui", space=True)
    assert not (tmp_path / "out").exists()
