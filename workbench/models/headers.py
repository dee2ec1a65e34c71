"""The headers of safetensors files: which tensors a checkpoint has, and where they lie.

The format: 8 bytes little-endian length of a JSON header {name: {dtype, shape, data_offsets}}, then
the data (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ..records import BadInput, jsonfile, numel, read_text

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
STEM = "diffusion_pytorch_model"
# diffusers' and transformers' name of the index of a variant's shards
VARIANT_INDEX = re.compile(rf"(?:{STEM}|model)\.safetensors\.index\.(\w+)\.json")
MAX_HEADER = 100_000_000  # the limit of the safetensors library
AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: bytes start..end of a file."""

    file: Path
    dtype: str  # safetensors name: BF16, F32, ...
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.start

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]


def headers(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a folder's safetensors checkpoint, by name; no weights are read.

    Raises BadInput for a missing, truncated or malformed file, a shard the index names and the
    folder lacks, and a tensor the index names and its shard lacks.
    """
    folder = Path(folder)
    index = index_file(folder)
    if index is not None:
        return shard_headers(folder, index)
    single = _pick(folder, ".safetensors")
    if single is not None:
        return file_headers(single)
    content = "no such folder"
    if folder.is_dir():
        content = ", ".join(sorted(path.name for path in folder.iterdir())[:6])
    raise BadInput(
        f"{folder} has no safetensors file ({content})",
        f"{STEM}.safetensors, or shards with an index",
        "check the folder, or save the model with safe_serialization=True",
    )


def index_file(folder: Path) -> Path | None:
    """The index of a folder's shards; None where its weights are one file.

    The standard one, else that of a variant (fp16), unless the standard weights are one file.
    """
    index = _pick(folder, ".safetensors.index.json")
    if index is not None or (folder / f"{STEM}.safetensors").is_file():
        return index
    variants = [path for path in sorted(folder.glob("*.json")) if index_variant(path.name)]
    if len(variants) > 1:
        found = f"{folder} has the shards of {len(variants)} variants ({variants[0].name}, ..)"
        raise BadInput(found, "one, or the standard names", "remove the others")
    return variants[0] if variants else None


def index_variant(name: str) -> str:
    """The variant in the name of an index of shards; empty for other names."""
    match = VARIANT_INDEX.fullmatch(name)
    return match[1] if match else ""


def shard_headers(folder: Path, index: Path) -> dict[str, TensorInfo]:
    """The tensors that an index names, from the headers of its shards."""
    shard_of = read_index(index)
    shards: dict[str, dict[str, TensorInfo]] = {}
    for shard in sorted(set(shard_of.values())):
        if not (folder / shard).is_file():
            raise BadInput(
                f"shard {shard} named by {index.name} is missing from {folder}",
                "every shard of the index",
                AGAIN,
            )
        shards[shard] = file_headers(folder / shard)
    for name, shard in shard_of.items():
        if name not in shards[shard]:
            found = f"{folder / shard} lacks tensor {name}"
            raise BadInput(found, f"the tensors {index.name} names", AGAIN)
    return {name: shards[shard][name] for name, shard in shard_of.items()}


def _pick(folder: Path, suffix: str) -> Path | None:
    """The one file with that suffix; diffusers' standard name wins over variants."""
    found = sorted(folder.glob(f"*{suffix}"))
    if folder / f"{STEM}{suffix}" in found:
        return folder / f"{STEM}{suffix}"
    if len(found) > 1:
        raise BadInput(
            f"{folder} has {len(found)} checkpoints ({found[0].name}, {found[1].name})",
            f"one, or {STEM}{suffix}",
            "remove or rename the others",
        )
    return found[0] if found else None


def read_index(index: Path) -> dict[str, str]:
    """Tensor name -> shard, of a sharded checkpoint's index. Raises BadInput for another file."""
    try:
        data = jsonfile.parse(read_text(index, "index", jsonfile.MOST_BYTES))
    except jsonfile.JSONError as error:
        raise bad_index(index, str(error)) from None
    weights = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weights, dict):
        raise bad_index(index, "it has no weight_map")
    entries = list(weights.items())
    for name, shard in entries:
        if not isinstance(shard, str) or shard != Path(shard).name:
            raise bad_index(index, f"{name} is in {shard!r}")
    if not entries:
        raise bad_index(index, "it names no tensor")
    return dict(entries)


def bad_index(index: Path, reason: str) -> BadInput:
    return BadInput(
        f"{index} is not a safetensors index ({reason})",
        "JSON with a weight_map of tensor: file",
        AGAIN,
    )


def file_headers(file: Path) -> dict[str, TensorInfo]:
    """Header of one safetensors file, checked against the file's size."""
    raw, size = _raw_header(file)
    base = 8 + len(raw)
    try:
        header = jsonfile.parse(raw)
        header.pop("__metadata__", None)
        entries = {name: _entry(file, item, base) for name, item in header.items()}
    except BadInput:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{file} has a broken header ({type(error).__name__}: {str(error)[:80]})",
            "a safetensors header in JSON",
            AGAIN,
        ) from None
    _check_layout(file, entries, base, size)
    return entries


def _raw_header(file: Path) -> tuple[bytes, int]:
    """The header's bytes, and the size of the whole file."""
    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or not 2 <= length <= MAX_HEADER:
                raise BadInput(
                    f"{file} is not a safetensors file (header of {length} bytes, file of {size})",
                    f"a header of 2 to {MAX_HEADER} bytes",
                    AGAIN,
                )
            if size < 8 + length:
                raise BadInput(
                    f"{file} is truncated ({size} bytes, its header alone needs {8 + length})",
                    "the whole file",
                    AGAIN,
                )
            return handle.read(length), size
    except OSError as error:
        found = f"{file} cannot be read ({error.strerror})"
        raise BadInput(found, "a readable safetensors file", "check the path") from None


def _entry(file: Path, item: Mapping[str, Any], base: int) -> TensorInfo:
    start, end = whole_numbers(item["data_offsets"])
    shape = whole_numbers(item["shape"])
    if item["dtype"] not in DTYPES:
        raise unknown_dtype(file, item["dtype"])
    return TensorInfo(file, item["dtype"], shape, base + start, base + end)


def unknown_dtype(file: Path, dtype: Any) -> BadInput:
    """The error for a dtype that torch's weights do not have: codes of a quantised model, if its
    name says a few bits.
    """
    codes = isinstance(dtype, str) and dtype.startswith(("F4", "F6", "F8", "I4", "U4"))
    kind = " (codes of a quantised model)" if codes else ""
    do = "use the unquantised model" if codes else "save it again in bf16"
    found = f"{file} has tensors of dtype {str(dtype)[:40]}{kind}"
    return BadInput(found, "one of " + ", ".join(DTYPES), do)


def whole_numbers(values: Any) -> tuple[int, ...]:
    """A list of whole numbers from 0 on. Raises TypeError or ValueError for anything else."""
    for value in values:
        if type(value) is not int or value < 0:
            raise ValueError(f"{value!r:.40} where a whole number belongs")
    return tuple(values)


def _check_layout(file: Path, entries: Mapping[str, TensorInfo], base: int, size: int) -> None:
    """Tensors fill the file without gap or overlap, each as long as its shape says."""
    for name, info in entries.items():
        expected = numel(list(info.shape)) * info.torch_dtype.itemsize
        if info.bytes != expected:
            raise BadInput(
                f"{file}: tensor {name} has {info.bytes} bytes",
                f"{expected} for {info.dtype} {list(info.shape)}",
                AGAIN,
            )
    order = sorted(entries.items(), key=lambda entry: (entry[1].start, entry[1].end))
    for (name, one), (other, two) in pairwise(order):
        if two.start != one.end:
            fault = "overlap" if two.start < one.end else "leave a gap"
            found = f"{file}: tensors {name} and {other} {fault}"
            raise BadInput(found, "tensors one after the other", AGAIN)
    first = order[0][1].start if order else base
    last = order[-1][1].end if order else base
    if last > size:
        raise BadInput(f"{file} is truncated ({size} bytes)", f"{last} bytes, by its header", AGAIN)
    if first != base or last != size:
        raise BadInput(
            f"{file} has {size} bytes, data from {first} to {last}",
            f"data from {base} to the end",
            AGAIN,
        )
