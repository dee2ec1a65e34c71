"""A checkpoint that is not what it looks like: `info` reads it, or says at once what it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Run, only_json
from tests.models.test_stored_forms import (
    STEM,
    added,
    cast,
    change,
    inserted,
    packed,
    prefixed,
    same,
    with_lora,
)
from tests.refusals import refused
from tests.tiny import tiny_transformer
from workbench import models, surgery
from workbench.records import BadInput, Plan, Span


def rewritten(changed: Callable[..., object], **config: object) -> Callable[[Path], Path]:
    """The folder with its tensors changed."""
    return lambda folder: change(folder, changed, **config)


def alone(name: str, changed: Callable[..., object] = same) -> Callable[[Path], Path]:
    """A checkpoint in one file, outside any folder of diffusers."""

    def make(folder: Path) -> Path:
        change(folder, changed)
        return (folder / f"{STEM}.safetensors").rename(folder.parent / name)

    return make


def only_file(name: str, head: bytes) -> Callable[[Path], Path]:
    """One file that begins with these bytes, alone in a folder."""

    def make(folder: Path) -> Path:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / name).write_bytes(head + bytes(64))
        return folder

    return make


COMFY = prefixed("model.diffusion_model.")
# what the user has: how it is made, what the line names, what it says to do
REFUSED: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "fp8 with weight_scale": (
        rewritten(cast(torch.float8_e4m3fn, "weight_scale")),
        "weight_scale",
        "dequantise",
    ),
    "fp8 of ComfyUI with scale_weight": (
        rewritten(cast(torch.float8_e4m3fn, "scale_weight")),
        "scale_weight",
        "dequantise",
    ),
    "fp8 in blocks, of DeepSeek's kind": (
        rewritten(cast(torch.float8_e4m3fn, "weight_scale_inv")),
        "weight_scale_inv",
        "dequantise",
    ),
    "bitsandbytes int8": (rewritten(cast(torch.int8, "SCB")), "SCB", "unquantised"),
    "bitsandbytes nf4": (rewritten(packed), "bitsandbytes 4 bit", "unquantised"),
    "bitsandbytes by its config": (
        rewritten(same, quantization_config={"quant_method": "bitsandbytes"}),
        "bitsandbytes",
        "unquantised",
    ),
    "torchao by its config": (
        rewritten(same, quantization_config={"quant_method": "torchao"}),
        "torchao",
        "unquantised",
    ),
    "a compiled model": (rewritten(prefixed("_orig_mod.")), "_orig_mod", "model._orig_mod"),
    "compiled blocks": (rewritten(inserted("_orig_mod")), "_orig_mod", "model._orig_mod"),
    "a model of DistributedDataParallel": (
        rewritten(prefixed("module.")),
        "module.",
        "model.module",
    ),
    "keys under transformer.": (
        rewritten(prefixed("transformer.")),
        "begin with transformer.",
        "without the prefix",
    ),
    "keys of ComfyUI in a folder": (
        rewritten(COMFY),
        "begin with model.diffusion_model.",
        "without the prefix",
    ),
    "a LoRA left in the teacher": (rewritten(with_lora), "a LoRA that is not fused", "fuse_lora"),
    "one file of ComfyUI": (alone("qwen.safetensors", COMFY), "safetensors file", "from_single"),
    "one file in a folder": (
        only_file("flux1-dev.safetensors", b"\x10" + bytes(7) + b'{"a":{}}'),
        "flux1-dev.safetensors and no config.json",
        "from_single_file",
    ),
    "GGUF in a folder": (only_file("flux-Q4_0.gguf", b"GGUF\3"), "no config.json", "unquantised"),
    "a .ckpt in a folder": (only_file("model.ckpt", b"PK\3\4"), "model.ckpt", "from_single_file"),
}


@pytest.mark.parametrize("has", REFUSED)
def test_info_says_what_it_is(command: Run, transformer: Path, has: str) -> None:
    make, found, do = REFUSED[has]
    done = command("info", make(transformer))
    assert done.returncode == 2 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert found in line and do in line.rpartition(";")[2]


def test_a_part_of_a_pipeline_that_is_no_transformer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKLQwenImage"}')
    with refused("AutoencoderKLQwenImage is not a transformer", do="point to the pipeline"):
        models.describe(tmp_path, "x")


# --- what is read -----------------------------------------------------------------------------------


def in_shards(folder: Path) -> None:
    """The variant fp16 in shards, and nothing else."""
    model = models.load_transformer(folder)
    shutil.rmtree(folder)
    model.save_pretrained(folder, variant="fp16", max_shard_size="100KB")


def in_older_shards(folder: Path) -> None:
    """The same under the names that diffusers gave until 0.29."""
    in_shards(folder)
    index = folder / f"{STEM}.safetensors.index.fp16.json"
    text = index.read_text()
    for file in folder.glob("*.safetensors"):
        number = re.search(r"-\d{5}-of-\d{5}", file.name)
        assert number is not None
        older = f"{STEM}{number[0]}.fp16.safetensors"
        text = text.replace(file.name, older)
        file.rename(folder / older)
    index.write_text(text)


def both(folder: Path) -> None:
    """The standard file beside the variant in shards."""
    models.load_transformer(folder).half().save_pretrained(
        folder, variant="fp16", max_shard_size="100KB"
    )


VARIANTS = {"in shards": in_shards, "in shards of older names": in_older_shards, "both": both}


@pytest.mark.parametrize("has", VARIANTS)
def test_a_variant_is_described_and_loaded(transformer: Path, has: str) -> None:
    plain = models.describe(transformer, "x")
    weights = models.load_transformer(transformer).state_dict()
    VARIANTS[has](transformer)
    assert models.describe(transformer, "x").fingerprint == plain.fingerprint
    loaded = models.load_transformer(transformer).state_dict()
    assert all(torch.equal(x, loaded[name]) for name, x in weights.items())


def test_tensors_that_no_module_has_are_named(
    command: Run, transformer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that would lie in a block behind the last, which is no other depth."""
    for name in ("controlnet.extra", "transformer_blocks.2.attn.to_q.weight"):
        change(transformer, added(name, torch.ones(3)))
    done = command("info", transformer, "--json")
    assert only_json(done)["stacks"][0]["depth"] == 2
    assert "controlnet.extra" in done.stderr and "blocks.2.attn.to_q" in done.stderr


def merged(init: str = "mean") -> Plan:
    span = Span(blocks=(0, 1), init=init)
    return Plan(teacher="tiny", family="qwenimage", stacks={"transformer_blocks": [span]})


def test_a_lora_in_a_loaded_teacher_is_refused_before_a_merge() -> None:
    peft = pytest.importorskip("peft")
    model = tiny_transformer(depth=2)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    with pytest.raises(BadInput, match="fuse_lora"), surgery.applied(model, merged()):
        pass
    model.fuse_lora()
    model.unload_lora()
    with surgery.applied(model, merged()) as student:
        assert len(student.transformer_blocks) == 1


# --- special files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is no regular file, by what it is."""
    folder = tmp_path_factory.mktemp("special")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    bound = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # a socket's path has at most 108 letters
    bound.bind("socket")
    os.chdir(here)
    return {
        "a pipe": str(folder / "pipe"),
        "a folder": str(folder / "folder"),
        "a socket": str(folder / "socket"),
        "a device": "/dev/zero",
    }


PLACES: dict[str, list[str]] = {
    "prompts": ["profile", "MODEL", "--prompts", "FILE"],
    "inputs": ["profile", "MODEL", "--inputs", "FILE"],
    "plan": ["build", "FILE", "-o", "student"],
    "map": ["plan", "MODEL", "--rule", "amber", "--keep", "2", "--sensitivity", "FILE"],
    "plugin": ["info", "MODEL", "--plugin", "FILE"],
}


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a socket", "a device"])
@pytest.mark.parametrize("place", PLACES)
def test_a_special_file_is_not_read(
    command: Run, tiny: Path, special: dict[str, str], place: str, kind: str
) -> None:
    named = {"MODEL": str(tiny), "FILE": special[kind]}
    done = command(*[named.get(word, word) for word in PLACES[place]])
    assert done.returncode == 2
    assert f"{special[kind]} is {kind}" in done.stderr


def test_a_checkpoint_given_as_prompts_is_not_read_whole(
    command: Run, tiny: Path, tmp_path: Path
) -> None:
    large = tmp_path / "model.txt"
    large.touch()
    os.truncate(large, 40 * 2**30)  # sparse
    done = command("profile", tiny, "--prompts", large)
    assert done.returncode == 2 and "more than" in done.stderr


def test_a_config_of_another_quantisation_names_it(command: Run, pipeline: Path) -> None:
    """A quantised text encoder is not the transformer's business: info reads the transformer."""
    config = pipeline / "text_encoder" / "config.json"
    about = {**json.loads(config.read_text()), "quantization_config": {"quant_method": "gptq"}}
    config.unlink()
    config.write_text(json.dumps(about))
    assert command("info", pipeline).returncode == 0


def test_a_variant_of_a_teacher_builds_a_student_of_standard_names(
    command: Run, pipeline: Path, tmp_path: Path
) -> None:
    in_shards(pipeline / "transformer")
    plan = tmp_path / "plan.yaml"
    spans = [Span(blocks=(0, 1), init="mean"), Span(blocks=(2, 2)), Span(blocks=(3, 3))]
    stacks = {"transformer_blocks": spans}
    Plan(teacher=str(pipeline), family="qwenimage", stacks=stacks).save(plan)
    out = tmp_path / "student"
    only_json(command("build", plan, "-o", out, "--json"))
    assert list(load_file(out / "transformer" / f"{STEM}.safetensors"))
