"""Safetensors headers, reading, writing; checked against the safetensors library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.refusals import refused
from workbench.models import checkpoints
from workbench.models.checkpoints import STEM, Reader, Writer

TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "b": torch.arange(5, dtype=torch.bfloat16),
    "c": torch.tensor(7),
    "d": torch.empty(0, 4),
    "e": torch.arange(3.0, dtype=torch.float64),
}


def write(folder: Path, limit: int) -> None:
    layout = {name: (t.dtype, tuple(t.shape)) for name, t in TENSORS.items()}
    with Writer(folder, layout, max_shard_size=limit) as writer:
        for name in writer.order:
            writer.write(name, TENSORS[name])


@pytest.mark.parametrize("limit", [10**9, 30])
def test_what_is_written_reads_back(tmp_path: Path, limit: int) -> None:
    write(tmp_path, limit)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (limit == 30)
    theirs = {name: tensor for file in files for name, tensor in load_file(file).items()}
    with Reader(tmp_path) as reader:
        for name, tensor in TENSORS.items():
            assert torch.equal(reader.tensor(name), tensor) and torch.equal(theirs[name], tensor)


def test_fingerprint_follows_weights_not_shards(tmp_path: Path) -> None:
    write(tmp_path / "one", 10**9)
    write(tmp_path / "many", 30)
    save_file({**TENSORS, "c": torch.tensor(8)}, str(tmp_path / f"{STEM}.safetensors"))
    one, many, other = (checkpoints.fingerprint(tmp_path / name) for name in ("one", "many", ""))
    assert one == many != other and len(one) == 12


def header(file: Path, change: dict | None = None, raw: bytes | None = None) -> None:
    """Rewrite a file's header in place."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = (
        raw
        if raw is not None
        else json.dumps({**json.loads(data[8 : 8 + length]), **(change or {})}).encode()
    )
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


# what is wrong with the file: how it comes about, and what the refusal says of it
FAULTS = {
    "cut in its data": (lambda f: f.write_bytes(f.read_bytes()[:-4]), "(390 bytes)", "394 bytes"),
    "cut in its header": (lambda f: f.write_bytes(f.read_bytes()[:40]), "(40 bytes", "the whole"),
    "a header longer than the file": (
        lambda f: f.write_bytes((2**63 - 1).to_bytes(8, "little") + f.read_bytes()[8:]),
        f"header of {2**63 - 1} bytes",
        "a header of 2 to",
    ),
    "another file": (lambda f: f.write_bytes(b"abc"), "file of 3", "a header of 2 to"),
    "an empty file": (lambda f: f.write_bytes(b""), "file of 0", "a header of 2 to"),
    "no JSON": (lambda f: header(f, raw=b"{not json"), "header (JSONError", "JSON"),
    "a list": (lambda f: header(f, raw=b"[1, 2]"), "header (TypeError", "JSON"),
    "no place": (lambda f: header(f, {"b": {"dtype": "BF16"}}), "header (KeyError", "JSON"),
    "unknown dtype": (lambda f: header(f, {"b": tensor("F7", 5, 0, 10)}), "dtype F7", "BF16"),
    "overlap": (lambda f: header(f, {"b": tensor("BF16", 5, 2, 12)}), "tensors c and b", ""),
    "too few bytes": (
        lambda f: header(f, {"b": tensor("BF16", 6, 0, 10)}),
        "tensor b has 10 bytes",
        "12 for BF16 [6]",
    ),
    "a tail": (lambda f: f.write_bytes(f.read_bytes() + b"tail"), "398 bytes", "data from 328"),
}


def tensor(dtype: str, size: int, start: int, end: int) -> dict[str, object]:
    """A header's entry."""
    return {"dtype": dtype, "shape": [size], "data_offsets": [start, end]}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_file_is_named(tmp_path: Path, fault: str) -> None:
    write(tmp_path, 10**9)
    spoil, found, expected = FAULTS[fault]
    spoil(tmp_path / f"{STEM}.safetensors")
    with refused(found, expected) as error:
        checkpoints.headers(tmp_path)
    assert STEM in error.value.found


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    write(tmp_path / "good", 30)
    index = f"{STEM}.safetensors.index.json"

    def broken(name: str) -> Path:
        return Path(shutil.copytree(tmp_path / "good", tmp_path / name))

    one = broken("one")
    sorted(one.glob("*.safetensors"))[0].unlink()
    with refused(found="diffusion_pytorch_model-00001-of-00004", expected="every shard"):
        checkpoints.headers(one)
    two = broken("two")
    held = json.loads((two / index).read_text())
    held["weight_map"]["ghost"] = held["weight_map"]["b"]
    (two / index).write_text(json.dumps(held))
    with refused(found="tensor ghost", expected=index):
        checkpoints.headers(two)
    for text in (
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
    ):
        (two / index).write_text(text)
        with refused(found=str(two / index), expected="weight_map"):
            checkpoints.headers(two)
    with refused(found=str(tmp_path / "good" / "none"), expected=STEM):
        checkpoints.headers(tmp_path / "good" / "none")


def test_a_file_cut_while_reading(tmp_path: Path) -> None:
    write(tmp_path, 10**9)
    with Reader(tmp_path) as reader:
        file = tmp_path / f"{STEM}.safetensors"
        file.write_bytes(file.read_bytes()[:-20])
        with refused(found="tensor a.weight", expected="24 bytes"):
            for name in TENSORS:
                reader.tensor(name)
