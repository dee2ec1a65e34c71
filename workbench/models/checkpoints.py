"""Safetensors files, read and written tensor by tensor, with the standard library's file operations
only.

A checkpoint of any size passes through without ever being held in memory. The format: 8 bytes
little-endian length of a JSON header {name: {dtype, shape, data_offsets}}, then the data
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch
import xxhash

from ..records import BadInput, numel, read_text

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
MAX_HEADER = 100_000_000  # the limit of the safetensors library
CHUNK = 8 * 2**20  # bytes read or written at a time
# bytes of a tensor that is computed, likewise: its float32 copies stay in the processor's cache
SLAB = 2**20
SETTLE = 8 * CHUNK  # bytes written until the disk is asked to start
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


# --- reading --------------------------------------------------------------------------------------


def headers(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a folder's safetensors checkpoint, by name; no weights are read.

    Raises BadInput for a missing, truncated or malformed file, a shard the index names and the
    folder lacks, and a tensor the index names and its shard lacks.
    """
    folder = Path(folder)
    index = _pick(folder, ".safetensors.index.json")
    if index is None:
        single = _pick(folder, ".safetensors")
        if single is None:
            held = (
                ", ".join(sorted(p.name for p in folder.iterdir())[:6])
                if folder.is_dir()
                else "no such folder"
            )
            raise BadInput(
                f"{folder} has no safetensors file ({held})",
                f"{STEM}.safetensors, or shards with an index",
                "check the folder, or save the model with safe_serialization=True",
            )
        return file_headers(single)
    weights = read_index(index)
    shards: dict[str, dict[str, TensorInfo]] = {}
    for shard in sorted(set(weights.values())):
        if not (folder / shard).is_file():
            raise BadInput(
                f"shard {shard} named by {index.name} is missing from {folder}",
                "every shard of the index",
                AGAIN,
            )
        shards[shard] = file_headers(folder / shard)
    for name, shard in weights.items():
        if name not in shards[shard]:
            raise BadInput(
                f"{folder / shard} lacks tensor {name}", f"the tensors {index.name} names", AGAIN
            )
    return {name: shards[shard][name] for name, shard in weights.items()}


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
    text = read_text(index, "index")
    try:
        weights = json.loads(text)["weight_map"]
        entries = list(weights.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_index(index, type(error).__name__) from None
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
    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or not 2 <= length <= MAX_HEADER:
                raise BadInput(
                    f"{file} is no safetensors file (header of {length} bytes, file of {size})",
                    f"a header of 2 to {MAX_HEADER} bytes",
                    AGAIN,
                )
            if size < 8 + length:
                raise BadInput(
                    f"{file} is truncated ({size} bytes, its header alone needs {8 + length})",
                    "the whole file",
                    AGAIN,
                )
            raw = handle.read(length)
    except OSError as error:
        raise BadInput(
            f"{file} cannot be read ({error.strerror})",
            "a readable safetensors file",
            "check the path",
        ) from None
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        entries = {name: _entry(file, item, 8 + length) for name, item in header.items()}
    except BadInput:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{file} has a broken header ({type(error).__name__}: {str(error)[:80]})",
            "a safetensors header in JSON",
            AGAIN,
        ) from None
    _check_layout(file, entries, 8 + length, size)
    return entries


def _entry(file: Path, item: Mapping[str, Any], base: int) -> TensorInfo:
    start, end = (int(x) for x in item["data_offsets"])
    shape = tuple(int(x) for x in item["shape"])
    if item["dtype"] not in DTYPES:
        raise BadInput(
            f"{file} has tensors of dtype {item['dtype']}",
            "one of " + ", ".join(DTYPES),
            "convert the checkpoint",
        )
    return TensorInfo(file, item["dtype"], shape, base + start, base + end)


def _check_layout(file: Path, entries: Mapping[str, TensorInfo], base: int, size: int) -> None:
    """Tensors fill the file without gap or overlap, each as long as its shape says."""
    for name, info in entries.items():
        wanted = numel(list(info.shape)) * info.torch_dtype.itemsize
        if min(info.shape, default=0) < 0 or info.bytes != wanted:
            raise BadInput(
                f"{file}: tensor {name} has {info.bytes} bytes",
                f"{wanted} for {info.dtype} {list(info.shape)}",
                AGAIN,
            )
    order = sorted(entries.items(), key=lambda entry: (entry[1].start, entry[1].end))
    for (name, one), (other, two) in pairwise(order):
        if two.start != one.end:
            fault = "overlap" if two.start < one.end else "leave a gap"
            raise BadInput(
                f"{file}: tensors {name} and {other} {fault}", "tensors one after the other", AGAIN
            )
    first, last = (order[0][1].start, order[-1][1].end) if order else (base, base)
    if last > size:
        raise BadInput(f"{file} is truncated ({size} bytes)", f"{last} bytes, by its header", AGAIN)
    if first != base or last != size:
        raise BadInput(
            f"{file} has {size} bytes, data from {first} to {last}",
            f"data from {base} to the end",
            AGAIN,
        )


class Reader:
    """Reads single tensors of a checkpoint folder, always from the file: nothing stays in memory.

    A memory map would count its pages as ours; plain reads keep the peak at the tensors in hand.
    `keep` False: what has been read leaves the page cache.
    """

    def __init__(self, folder: Path, *, keep: bool = True) -> None:
        self.tensors, self.keep = headers(folder), keep
        self._files: dict[Path, BinaryIO] = {}
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def stream(self, name: str) -> Iterator[memoryview]:
        """The tensor's bytes in order, at most CHUNK at a time. Each piece is overwritten by the
        next one.
        """
        info = self.tensors[name]
        self._buffer = self._buffer or bytearray(CHUNK)
        for at in range(0, info.bytes, CHUNK):
            yield self._fill(name, at, memoryview(self._buffer)[: min(CHUNK, info.bytes - at)])

    def raw(self, name: str, limit: int | None = None) -> bytearray:
        """The tensor's bytes, or the first `limit` of them."""
        count = self.tensors[name].bytes
        buffer = bytearray(count if limit is None else min(limit, count))
        self._fill(name, 0, memoryview(buffer))
        return buffer

    def tensor(self, name: str) -> torch.Tensor:
        info = self.tensors[name]
        if not info.bytes:
            return torch.empty(info.shape, dtype=info.torch_dtype)
        return torch.frombuffer(self.raw(name), dtype=info.torch_dtype).reshape(info.shape)

    def rows(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows first..last-1 of the tensor along its first dimension."""
        info = self.tensors[name]
        shape = (last - first, *info.shape[1:])
        width = numel(list(info.shape[1:])) * info.torch_dtype.itemsize
        if not width or first == last:
            return torch.empty(shape, dtype=info.torch_dtype)
        buffer = bytearray(width * (last - first))
        self._fill(name, first * width, memoryview(buffer))
        return torch.frombuffer(buffer, dtype=info.torch_dtype).reshape(shape)

    def _fill(self, name: str, at: int, view: memoryview) -> memoryview:
        """Read into `view`, from byte `at` of the tensor on."""
        info = self.tensors[name]
        if info.file not in self._files:
            self._files[info.file] = open(info.file, "rb", buffering=0)  # noqa: SIM115
        done, file = 0, self._files[info.file].fileno()
        while done < len(view):
            got = os.preadv(file, [view[done:]], info.start + at + done)
            if not got:
                raise BadInput(
                    f"{info.file} ended inside tensor {name}", f"{info.bytes} bytes", AGAIN
                )
            done += got
        if not self.keep:
            forget(self._files[info.file], info.start + at + done)
        return view


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes in order; shared with it where it is contiguous on the CPU."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def fingerprint(folder: Path) -> str:
    """12 hex digits of SHA-256 over names, dtypes, shapes and the first KiB of every tensor, in
    order of name.

    Two checkpoints of one architecture differ in it; the same weights in other shards do not.
    """
    digest = hashlib.sha256()
    with Reader(folder) as reader:
        for name in sorted(reader.tensors):
            info = reader.tensors[name]
            digest.update(f"{name} {info.dtype} {list(info.shape)}\n".encode())
            digest.update(reader.raw(name, 1024))
    return digest.hexdigest()[:12]


# --- writing --------------------------------------------------------------------------------------

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class Writer:
    """Streams tensors of known dtype and shape into safetensors shards, header first, one tensor in
    hand at a time.

    Write in the order of `order`; on leaving without an error every file is on the disk (fsync) and
    the index written.
    """

    def __init__(
        self, folder: Path, layout: Layout, *, max_shard_size: int = 5_000_000_000
    ) -> None:
        self.folder, self.layout = Path(folder), layout
        # Wide dtypes first, so that every tensor stays aligned.
        self.order = sorted(layout, key=lambda name: (-layout[name][0].itemsize, name))
        self.bytes = self._loose = 0
        self.sums: dict[str, int] = {}  # XXH3 of every tensor's bytes, as they were handed over
        self._shards = list(self._split(max_shard_size))
        self._due = iter([(file, name) for file, names in self._shards for name in names])
        self._file: BinaryIO | None = None
        self._name = ""

    def _size(self, name: str) -> int:
        dtype, shape = self.layout[name]
        return numel(list(shape)) * dtype.itemsize

    def _split(self, limit: int) -> Iterator[tuple[str, list[str]]]:
        shards: list[list[str]] = [[]]
        used = 0
        for name in self.order:
            if shards[-1] and used + self._size(name) > limit:
                shards.append([])
                used = 0
            shards[-1].append(name)
            used += self._size(name)
        many = len(shards) > 1
        for number, names in enumerate(shards, 1):
            yield (
                (
                    f"{STEM}-{number:05d}-of-{len(shards):05d}.safetensors"
                    if many
                    else f"{STEM}.safetensors"
                ),
                names,
            )

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Append the next tensor; its name, dtype and shape must be the announced ones."""
        assert (tensor.dtype, tuple(tensor.shape)) == self.layout[name], (
            f"{name}: {tensor.dtype} {list(tensor.shape)}"
        )
        self.stream(name, (raw_bytes(tensor),))

    def stream(self, name: str, pieces: Iterable[memoryview]) -> None:
        """Append the next tensor's bytes, piece by piece; the name must be the one that is due, the
        bytes as many as announced.
        """
        file, due = next(self._due)
        assert name == due, f"{due} is due, not {name}"
        if file != self._name:
            self._open(file)
        assert self._file is not None
        digest, size = xxhash.xxh3_64(), 0
        for piece in pieces:
            self._file.write(piece)
            digest.update(piece)
            size += len(piece)
            self._settle(len(piece))
        assert size == self._size(name), f"{name}: {size} bytes, announced were {self._size(name)}"
        self.sums[name] = digest.intdigest()
        self.bytes += size

    def _settle(self, size: int) -> None:
        """Let the disk start early on what has been written, and keep it out of the page cache."""
        self._loose += size
        if self._loose >= SETTLE and self._file is not None:
            self._file.flush()
            forget(self._file)
            self._loose = 0

    def _open(self, file: str) -> None:
        self._close()
        self._name, at, header = file, 0, {"__metadata__": {"format": "pt"}}
        for name in dict(self._shards)[file]:
            dtype, shape = self.layout[name]
            end = at + self._size(name)
            header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}  # type: ignore[dict-item]
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._file = open(self.folder / file, "wb")  # noqa: SIM115
        self._file.write(len(text).to_bytes(8, "little") + text)

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            forget(self._file)
            self._file.close()
            self._file, self._loose = None, 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if kind is not None:
            return
        assert next(self._due, None) is None, "not every announced tensor was written"
        if len(self._shards) > 1:
            weights = {name: file for file, names in self._shards for name in names}
            index = {
                "metadata": {"total_size": self.bytes},
                "weight_map": dict(sorted(weights.items())),
            }
            write_synced(
                self.folder / f"{STEM}.safetensors.index.json", json.dumps(index, indent=1) + "\n"
            )


def verify(folder: Path, layout: Layout, sums: Mapping[str, int]) -> Iterator[str]:
    """Read a checkpoint back from the disk and compare it with what `Writer` was given; yields each
    tensor's name.

    Raises OSError for a tensor that is missing, of another dtype or shape, or whose bytes differ.
    """
    with Reader(folder, keep=False) as reader:
        if unknown := sorted(reader.tensors.keys() ^ layout.keys()):
            raise OSError(f"{folder}: tensor {unknown[0]} is not as announced: the disk is failing")
        for name in sorted(
            layout, key=lambda name: (reader.tensors[name].file, reader.tensors[name].start)
        ):
            info, digest = reader.tensors[name], xxhash.xxh3_64()
            for piece in reader.stream(name):
                digest.update(piece)
            if (info.torch_dtype, info.shape) != layout[name] or digest.intdigest() != sums[name]:
                raise OSError(
                    f"{info.file}: tensor {name} reads back differently: the disk is failing"
                )
            yield name


def forget(file: BinaryIO, size: int = 0) -> None:
    """Drop the file's pages, or those of its first bytes, from the page cache: dirty ones go to the
    disk, the next read comes from it.
    """
    if hasattr(os, "posix_fadvise"):  # not everywhere
        os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)


def write_synced(path: Path, text: str) -> None:
    """Write text and wait until it is on the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries (new names, renames), or a file's bytes, are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
