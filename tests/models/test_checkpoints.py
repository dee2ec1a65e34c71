"""Safetensors headers, reading, writing; checked against the safetensors library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.models import checkpoints
from workbench.models.checkpoints import STEM, Reader, Writer
from workbench.records import BadInput

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


FAULTS = {
    "truncated": lambda f: f.write_bytes(f.read_bytes()[:-4]),
    "header alone": lambda f: f.write_bytes(f.read_bytes()[:40]),
    "of 9223372036854775807 bytes": lambda f: f.write_bytes(
        (2**63 - 1).to_bytes(8, "little") + f.read_bytes()[8:]
    ),
    "file of 3": lambda f: f.write_bytes(b"abc"),
    "file of 0": lambda f: f.write_bytes(b""),
    "broken header": lambda f: header(f, raw=b"{not json"),
    "broken header .TypeError": lambda f: header(f, raw=b"[1, 2]"),
    "broken header .KeyError": lambda f: header(f, {"b": {"dtype": "BF16"}}),
    "F7": lambda f: header(f, {"b": {"dtype": "F7", "shape": [5], "data_offsets": [0, 10]}}),
    "overlap": lambda f: header(f, {"b": {"dtype": "BF16", "shape": [5], "data_offsets": [2, 12]}}),
    "has 10 bytes": lambda f: header(
        f, {"b": {"dtype": "BF16", "shape": [6], "data_offsets": [0, 10]}}
    ),
    "data from": lambda f: f.write_bytes(f.read_bytes() + b"tail"),
}


@pytest.mark.parametrize("says", FAULTS)
def test_a_broken_file_is_named(tmp_path: Path, says: str) -> None:
    write(tmp_path, 10**9)
    FAULTS[says](tmp_path / f"{STEM}.safetensors")
    with pytest.raises(BadInput, match=says) as caught:
        checkpoints.headers(tmp_path)
    assert STEM in str(caught.value) and "\n" not in str(caught.value)


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    write(tmp_path / "good", 30)
    index = f"{STEM}.safetensors.index.json"

    def broken(name: str) -> Path:
        return Path(shutil.copytree(tmp_path / "good", tmp_path / name))

    one = broken("one")
    sorted(one.glob("*.safetensors"))[0].unlink()
    with pytest.raises(BadInput, match=r"shard .* is missing"):
        checkpoints.headers(one)
    two = broken("two")
    held = json.loads((two / index).read_text())
    held["weight_map"]["ghost"] = held["weight_map"]["b"]
    (two / index).write_text(json.dumps(held))
    with pytest.raises(BadInput, match="lacks tensor ghost"):
        checkpoints.headers(two)
    for text in (
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
    ):
        (two / index).write_text(text)
        with pytest.raises(BadInput, match="safetensors index"):
            checkpoints.headers(two)
    with pytest.raises(BadInput, match="no safetensors file"):
        checkpoints.headers(tmp_path / "good" / "none")


def test_a_file_cut_while_reading(tmp_path: Path) -> None:
    write(tmp_path, 10**9)
    with Reader(tmp_path) as reader:
        file = tmp_path / f"{STEM}.safetensors"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(BadInput, match="ended inside"):
            for name in TENSORS:
                reader.tensor(name)
