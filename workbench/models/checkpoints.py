"""Safetensors checkpoints, read and written tensor by tensor, with the standard library's file
operations only: one of any size passes through without ever being held in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch
import xxhash

from ..records import BadInput, numel
from .file_io import forget, write_synced
from .headers import AGAIN, NAMES, STEM, headers

CHUNK = 8 * 2**20  # bytes read or written at a time
# bytes of a tensor that is computed, likewise: its float32 copies stay in the processor's cache
SLAB = 2**20
SETTLE = 8 * CHUNK  # bytes written until the disk is asked to start

# --- reading --------------------------------------------------------------------------------------


class Reader:
    """Reads single tensors of a checkpoint folder, always from the file: nothing stays in memory.

    A memory map would count its pages as ours; plain reads keep the peak at the tensors in hand.
    `keep` False: what has been read leaves the page cache.
    """

    def __init__(self, folder: Path, *, keep: bool = True) -> None:
        self.tensors = headers(folder)
        self.keep = keep
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
        """The tensor's bytes in order, some MiB at a time. Each piece is overwritten by
        the next one.
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
        file = self._files[info.file].fileno()
        done = 0
        while done < len(view):
            count = os.preadv(file, [view[done:]], info.start + at + done)
            if not count:
                found = f"{info.file} ended inside tensor {name}"
                raise BadInput(found, f"{info.bytes} bytes", AGAIN)
            done += count
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
        self,
        folder: Path,
        layout: Layout,
        *,
        max_shard_size: int = 5_000_000_000,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.layout = layout
        self.metadata = {"format": "pt", **(metadata or {})}  # of every shard's header
        # Wide dtypes first, so that every tensor stays aligned.
        self.order = sorted(layout, key=lambda name: (-layout[name][0].itemsize, name))
        self.bytes = 0  # written so far
        self._loose = 0  # of them, those that the disk was not yet asked to store
        self.sums: dict[str, int] = {}  # tensor -> XXH3 of its bytes, as given
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
        for number, names in enumerate(shards, 1):
            part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
            yield f"{STEM}{part}.safetensors", names

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
        digest = xxhash.xxh3_64()
        size = 0
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
        self._name = file
        header: dict[str, Any] = {"__metadata__": self.metadata}
        at = 0
        for name in dict(self._shards)[file]:
            dtype, shape = self.layout[name]
            end = at + self._size(name)
            header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
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
            self._file = None
            self._loose = 0

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
            self._write_index()

    def _write_index(self) -> None:
        shard_of = {name: file for file, names in self._shards for name in names}
        weights = dict(sorted(shard_of.items()))
        index = {"metadata": {"total_size": self.bytes}, "weight_map": weights}
        path = self.folder / f"{STEM}.safetensors.index.json"
        write_synced(path, json.dumps(index, indent=1) + "\n")


def verify(folder: Path, layout: Layout, sums: Mapping[str, int]) -> Iterator[str]:
    """Read a checkpoint back from the disk and compare it with what `Writer` was given; yields each
    tensor's name.

    Raises OSError for a tensor that is missing, of another dtype or shape, or whose bytes differ.
    """
    with Reader(folder, keep=False) as reader:
        unknown = sorted(reader.tensors.keys() ^ layout.keys())
        if unknown:
            raise OSError(f"{folder}: tensor {unknown[0]} is not as announced: the disk is failing")
        in_file_order = sorted(
            reader.tensors.items(), key=lambda item: (item[1].file, item[1].start)
        )
        for name, info in in_file_order:
            digest = xxhash.xxh3_64()
            for piece in reader.stream(name):
                digest.update(piece)
            if (info.torch_dtype, info.shape) != layout[name] or digest.intdigest() != sums[name]:
                raise OSError(
                    f"{info.file}: tensor {name} reads back differently: the disk is failing"
                )
            yield name
