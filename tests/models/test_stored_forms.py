"""Checkpoints that are not what they look like: each is read, or refused with its own cause."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.refusals import refused
from tests.tiny import tiny_qwen_pipeline, tiny_transformer
from workbench import models, tasks
from workbench.models.headers import STEM
from workbench.models.weight_files import variant_of
from workbench.records import BadInput

Tensors = dict[str, torch.Tensor]
TO_Q = "transformer_blocks.0.attn.to_q"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer folder of two blocks."""
    folder = tmp_path_factory.mktemp("weights") / "transformer"
    tiny_transformer(depth=2).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(weights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights, tmp_path / "transformer"))


def change(folder: Path, changed: Callable[[Tensors], Tensors], **config: object) -> Path:
    """The folder with its tensors, and keys of its config.json, changed."""
    file = folder / f"{STEM}.safetensors"
    save_file({name: x.contiguous() for name, x in changed(load_file(file)).items()}, file)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def same(tensors: Tensors) -> Tensors:
    return tensors


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: x for name, x in tensors.items()}


def inserted(word: str) -> Callable[[Tensors], Tensors]:
    """A wrapper around each block puts a word behind its number."""
    before = "transformer_blocks."

    def rename(name: str) -> str:
        if not name.startswith(before):
            return name
        number, _, rest = name.removeprefix(before).partition(".")
        return f"{before}{number}.{word}.{rest}"

    return lambda tensors: {rename(name): x for name, x in tensors.items()}


def added(name: str, value: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: value}


def cast(dtype: torch.dtype, beside: str = "") -> Callable[[Tensors], Tensors]:
    """The linears of the blocks in another dtype; beside: a tensor of each that says how."""

    def quantise(tensors: Tensors) -> Tensors:
        out = dict(tensors)
        for name, x in tensors.items():
            if x.ndim == 2 and name.startswith("transformer_blocks"):
                out[name] = x.to(dtype)
                if beside:
                    out[name.removesuffix("weight") + beside] = torch.ones(1)
        return out

    return quantise


def packed(tensors: Tensors) -> Tensors:
    """As bitsandbytes saves nf4: codes of two in a byte, and what unpacks them."""
    out = dict(tensors)
    name = f"{TO_Q}.weight"
    out[name] = torch.zeros(tensors[name].numel() // 2, 1, dtype=torch.uint8)
    out[f"{name}.absmax"] = torch.ones(16)
    out[f"{name}.quant_state.bitsandbytes__nf4"] = torch.zeros(8, dtype=torch.uint8)
    return out


def gptq(tensors: Tensors) -> Tensors:
    out = {name: x for name, x in tensors.items() if name != f"{TO_Q}.weight"}
    return {**out, f"{TO_Q}.qweight": torch.zeros(4, 32, dtype=torch.int32)}


def with_lora(tensors: Tensors) -> Tensors:
    out = {name.replace(TO_Q, f"{TO_Q}.base_layer"): x for name, x in tensors.items()}
    return {**out, f"{TO_Q}.lora_A.default.weight": torch.zeros(4, 32)}


def lora_alone(tensors: Tensors) -> Tensors:
    return {f"transformer.{TO_Q}.lora_A.weight": torch.zeros(4, 32)}


def original_names(tensors: Tensors) -> Tensors:
    return {name.replace("transformer_blocks", "double_blocks"): x for name, x in tensors.items()}


FORMS = {
    "fp8, scaled": (cast(torch.float8_e4m3fn, "weight_scale"), "weight_scale", "bf16"),
    "fp8, scaled (ComfyUI)": (cast(torch.float8_e4m3fn, "scale_weight"), "scale_weight", "bf16"),
    "fp8, cast": (cast(torch.float8_e5m2), "F8_E5M2", "dtype=torch.bfloat16"),
    "int8 (bitsandbytes)": (cast(torch.int8, "SCB"), "SCB", "unquantised"),
    "int8 alone": (cast(torch.int8), "I8", "unquantised"),
    "nf4": (packed, "absmax", "unquantised"),
    "gptq": (gptq, "qweight", "unquantised"),
    "quanto": (cast(torch.int8, "weight._scale"), "weight._scale", "unquantised"),
    "compiled": (prefixed("_orig_mod."), "_orig_mod.", "_orig_mod"),
    "compiled blocks": (inserted("_orig_mod"), ".0._orig_mod.", "_orig_mod"),
    "parallel": (prefixed("module."), "module.", "model.module"),
    "checkpointed": (inserted("_checkpoint_wrapped_module"), "_checkpoint_wrapped_module", "save"),
    "pipeline prefix": (prefixed("transformer."), "begin with transformer.", "prefix transformer."),
    "single file prefix": (
        prefixed("model.diffusion_model."),
        "begin with model.diffusion_model.",
        "prefix model.diffusion_model.",
    ),
    "compiled and prefixed": (prefixed("model._orig_mod."), "begin with model.", "prefix"),
    "lora": (with_lora, f"{TO_Q}.base_layer.", "fuse_lora"),
    "lora alone": (lora_alone, "a LoRA alone", "base model"),
    "original names": (original_names, "double_blocks.", "from_single_file"),
    "nothing": (lambda tensors: {}, "no tensor", "copy"),
}


@pytest.mark.parametrize("form", FORMS)
def test_another_form_of_weights_is_refused_with_its_cause(copy: Path, form: str) -> None:
    changed, found, do = FORMS[form]
    change(copy, changed)
    with refused(found=found, do=do):
        models.describe(copy, "x")


@pytest.mark.parametrize("method", ["bitsandbytes", "torchao", "gguf"])
def test_a_config_that_says_quantised_is_refused(copy: Path, method: str) -> None:
    change(copy, same, quantization_config={"quant_method": method, "load_in_4bit": True})
    with refused(found=f"says {method}", do="unquantised"):
        models.describe(copy, "x")


def test_tensors_that_nothing_reads_are_named(copy: Path, capsys) -> None:
    before = models.describe(copy, "x")
    change(copy, added("controlnet.extra", torch.ones(3)))
    after = models.describe(copy, "x")
    assert (after.parameters, after.stacks) == (before.parameters, before.stacks)
    assert "controlnet.extra" in capsys.readouterr().err


def test_a_missing_block_is_not_advice_to_make_the_model_smaller(copy: Path) -> None:
    def without(tensors: Tensors) -> Tensors:
        return {name: x for name, x in tensors.items() if ".0." not in name}

    change(copy, without)
    with refused(found="holds 1 blocks", do="copy the whole checkpoint") as error:
        models.describe(copy, "x")
    assert "num_layers to" not in error.value.do


def test_mixed_dtypes_are_one_model(copy: Path) -> None:
    def mixed(tensors: Tensors) -> Tensors:
        dtypes = {"transformer_blocks": torch.bfloat16, "norm_out": torch.float64}
        return {
            name: x.to(dtypes.get(name.partition(".")[0], torch.float32))
            for name, x in tensors.items()
        }

    plain = models.describe(copy, "x").parameters
    teacher = models.describe(change(copy, mixed), "x")
    assert (teacher.dtype, teacher.parameters) == ("bfloat16", plain)


# --- files ----------------------------------------------------------------------------------------


def write_weights(folder: Path, content: bytes) -> None:
    (folder / f"{STEM}.safetensors").write_bytes(content)


def rename(folder: Path, name: str) -> None:
    (folder / f"{STEM}.safetensors").rename(folder / name)


def link(folder: Path) -> None:
    file = folder / f"{STEM}.safetensors"
    file.unlink()
    file.symlink_to("../../blobs/0123")


FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "git lfs": (
        lambda folder: write_weights(folder, b"version https://git-lfs.github.com/spec/v1\noid"),
        "Git LFS pointer",
        "git lfs pull",
    ),
    "web page": (lambda folder: write_weights(folder, b"<!DOCTYPE html><html>"), "web page", "hf"),
    "empty": (lambda folder: write_weights(folder, b""), "empty", "download"),
    "pickle": (lambda folder: write_weights(folder, b"PK\x03\x04" + bytes(64)), "pickled", "save"),
    "dead link": (link, "link to a file that is not there", "download"),
    "renamed": (lambda folder: rename(folder, "qwen.safetensors"), "qwen.safetensors", "rename"),
    "unfinished": (
        lambda folder: rename(folder, f"{STEM}.safetensors.incomplete"),
        "unfinished download",
        "download",
    ),
    "gguf": (lambda folder: rename(folder, "model-Q4_0.gguf"), "GGUF", "unquantised"),
    "bin": (lambda folder: rename(folder, f"{STEM}.bin"), f"{STEM}.bin", "safe_serialization"),
    "shards without an index": (
        lambda folder: rename(folder, f"{STEM}-00001-of-00002.safetensors"),
        "without their index",
        "copy the index",
    ),
}


@pytest.mark.parametrize("file", FILES)
def test_files_that_are_no_weights_are_refused_with_their_cause(copy: Path, file: str) -> None:
    spoil, found, do = FILES[file]
    spoil(copy)
    with refused(found=found, do=do):
        models.describe(copy, "x")
    with refused(found=found, do=do):
        models.load_transformer(copy)


LONE = {
    "flux1-dev.safetensors": (b"\x20" + bytes(7) + b'{"a":{}}', "safetensors file", "from_single"),
    "flux1-dev-Q4_0.gguf": (b"GGUF\x03", "GGUF", "unquantised"),
    "model.ckpt": (b"PK\x03\x04", "pickled", "from_single_file"),
    "model.bin": (bytes(16), "single file", "from_single_file"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "LFS", "git lfs pull"),
}


@pytest.mark.parametrize("name", LONE)
def test_one_file_is_answered_without_reading_it(tmp_path: Path, name: str) -> None:
    head, found, do = LONE[name]
    path = tmp_path / name
    path.write_bytes(head)
    os.truncate(path, 40 * 2**30)  # sparse
    for verb in ("info", "profile"):
        with refused(found=found, do=do):
            tasks.run(verb, {"teacher": str(path)}, tmp_path / "workspace", device="cpu")


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in ("/dev/zero", str(pipe)):
        with refused(found=path):
            tasks.run("info", {"teacher": path}, tmp_path / "workspace", device="cpu")
    large = tmp_path / "config.json"
    large.touch()
    os.truncate(large, 40 * 2**30)
    with refused(found="bytes"):
        tasks.run("info", {"teacher": str(large)}, tmp_path / "workspace", device="cpu")


def test_a_folder_of_another_kind_says_which(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with refused(found="a LoRA", do="fuse_lora"):
        models.describe(tmp_path, "x")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": []}))
    with refused(found="a transformers model (t5)"):
        models.describe(tmp_path, "x")


# --- variants -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_pipeline(tmp_path_factory.mktemp("standard") / "qwen", depth=2)


def as_variant(folder: Path) -> None:
    """Give a component's weights the name of the variant fp16."""
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))


@pytest.mark.parametrize(
    "parts", [["transformer"], ["text_encoder"], ["transformer", "text_encoder", "vae"]]
)
def test_a_variant_alone_loads_and_is_described_alike(
    standard: Path, tmp_path: Path, parts: list[str]
) -> None:
    folder = Path(shutil.copytree(standard, tmp_path / "qwen"))
    for part in parts:
        as_variant(folder / part)
    pipe = models.load_pipeline(folder)
    plain = models.load_pipeline(standard)
    for name in ("transformer", "text_encoder", "vae"):
        one = getattr(pipe, name).state_dict()
        other = getattr(plain, name).state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert models.describe(folder, "x") == models.describe(standard, "x")
    loaded = models.load_transformer(folder).state_dict()
    assert all(torch.equal(x, plain.transformer.state_dict()[key]) for key, x in loaded.items())


def test_of_both_variants_the_standard_one_is_read_and_loaded(
    standard: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(standard, tmp_path / "qwen"))
    as_variant(folder / "text_encoder")
    file = folder / "transformer" / f"{STEM}.safetensors"
    halved = {name: x.half() * 2 for name, x in load_file(file).items()}
    save_file(halved, folder / "transformer" / f"{STEM}.fp16.safetensors")
    pipe = models.load_pipeline(folder)
    name = f"{TO_Q}.weight"
    assert torch.equal(pipe.transformer.state_dict()[name], load_file(file)[name])
    assert models.describe(folder, "x").dtype == "float32"


def test_a_variant_in_shards_is_the_model(copy: Path) -> None:
    plain = models.describe(copy, "x")
    model = models.load_transformer(copy)
    shutil.rmtree(copy)
    model.save_pretrained(copy, variant="fp16", max_shard_size="100KB")
    assert len(list(copy.glob("*.safetensors"))) > 1
    described = models.describe(copy, "x")
    assert (described.stacks, described.fingerprint) == (plain.stacks, plain.fingerprint)
    loaded = models.load_transformer(copy).state_dict()
    assert all(torch.equal(x, loaded[name]) for name, x in model.state_dict().items())
    next(copy.glob("*.fp16-00001-*")).unlink()
    with refused(found="fp16-00001-of", do="again"):
        models.describe(copy, "x")


def test_variants_that_cannot_be_chosen_between(copy: Path) -> None:
    rename(copy, f"{STEM}.fp16.safetensors")
    assert variant_of(copy) == "fp16"
    shutil.copy(copy / f"{STEM}.fp16.safetensors", copy / f"{STEM}.bf16.safetensors")
    with pytest.raises(BadInput):
        models.describe(copy, "x")
    with refused(found="bf16, fp16"):
        variant_of(copy)
