"""Choose how a model is held in memory, and load it so. The ways: specs/placements.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..families import by_class
from ..records import BadInput, numel
from ..specs.placements import AUTO, PLACEMENT_ROWS, PLACEMENTS, Placement, Sizes
from ..specs.teacher_weights import AS_LOADED, STORED_WEIGHTS
from .access import Pipeline, quiet
from .folders import is_pipeline, read_config, transformer_folder
from .free_memory import free_memory
from .headers import headers
from .loading import (
    check_pipeline_folder,
    known_class,
    load_dtype,
    load_pipeline,
    load_stock_pipeline,
    load_transformer,
    own_class,
    pipeline_variant,
    ready,
    with_transformer,
)
from .packed_weights import packed_bytes
from .prompt_encodings import PromptEncodings, Prompts
from .quantized.stored import quantization_of, stored_shapes
from .unloaded import unloaded_transformer

USABLE = 0.7  # of the free memory, for weights; the rest is for states and what is computed
GB = 1e9
ENCODINGS = "workbench_encodings"  # attribute of a placed pipeline


@dataclass(frozen=True)
class Choice:
    """A placement with the reason for it. needs, free: bytes, of weights and on the device."""

    placement: Placement
    asked: str
    needs: int
    free: int
    device: str
    weights: str = AS_LOADED  # how a teacher's are stored in memory

    @property
    def in_words(self) -> str:
        reason = "as asked" if self.asked != AUTO else "chosen by size"
        packed = "" if self.weights == AS_LOADED else f", {self.weights} weights"
        return (
            f"{self.placement.name}{packed} ({reason}; holds {self.needs / GB:.2f} GB of weights, "
            f"{self.free / GB:.1f} GB are free on {self.device})"
        )

    def facts(self) -> dict[str, Any]:
        """For records: what it was, and whether a person asked for it."""
        return {
            "placement": self.placement.name,
            "placement_asked": self.asked,
            "teacher_weights": self.weights,
        }


def choose(
    asked: str,
    folders: Sequence[Path],
    *,
    device: str,
    dtype: str | torch.dtype | None = None,
    beside: int = 0,
    interleaved: bool = False,
    processes: int = 1,
    streams: bool = True,
    weights: str = AS_LOADED,
) -> Choice:
    """The placement for models that are held one at a time: the one asked for, else the first row
    whose weights fit into USABLE of the free memory, else the one that needs least.

    beside, interleaved: see Placement.needs. processes: that share a host's memory. streams:
    whether the work can be done on streamed blocks. weights: of specs.teacher_weights; packed ones
    are not streamed. Raises BadInput where both are asked for.
    """
    check_weights(asked, weights)
    quantized = any(quantization_of(transformer_folder(folder)) for folder in folders)
    streams = streams and weights == AS_LOADED and not quantized
    rows = [row for row in PLACEMENT_ROWS if streams or not row.streamed]
    sizes = [sizes_of(folder, device, dtype, weights) for folder in folders]
    free = free_memory(device)
    if torch.device(device).type == "cpu":
        free //= processes

    def needs(row: Placement) -> int:
        return max(row.needs(each, beside, interleaved) for each in sizes)

    if asked != AUTO:
        row = PLACEMENTS[asked]
        return Choice(row, asked, needs(row), free, device, weights)
    for row in rows:
        if needs(row) <= USABLE * free:
            return Choice(row, asked, needs(row), free, device, weights)
    least = min(rows, key=needs)
    return Choice(least, asked, needs(least), free, device, weights)


def check_weights(placement: str, weights: str) -> None:
    """Raises BadInput for packed weights of blocks that are streamed."""
    if weights == AS_LOADED or placement == AUTO or not PLACEMENTS[placement].streamed:
        return
    raise BadInput(
        f"--teacher-weights {weights} with --placement {placement}",
        "one of them: packed blocks stay in memory, streamed ones are read as they are",
        "leave one of them out",
    )


def sizes_of(
    path: Path, device: str, dtype: str | torch.dtype | None, weights: str = AS_LOADED
) -> Sizes:
    """A model's weights by headers, in the precision it will be loaded in, and packed."""
    folder = transformer_folder(path)
    wide = load_dtype(folder, device, dtype).itemsize
    blocks: dict[str, int] = {}
    outside = 0
    packed = 0.0
    family = by_class(str(read_config(folder / "config.json")["_class_name"]))
    prefixes = [f"{row.path}." for row in family.stacks]
    for name, shape in stored_shapes(folder).items():
        size = numel(shape) * wide
        stack = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if stack is None:
            outside += size
            continue
        block = stack + name.removeprefix(stack).partition(".")[0]
        blocks[block] = blocks.get(block, 0) + size
        packed += size_in_bits(shape, size, weights)
    text = 0
    others = 0
    for part in sorted(path.iterdir()) if is_pipeline(path) else []:
        if part.is_dir() and part != folder:
            size = component_size(part, wide)
            text += size if part.name.startswith("text_encoder") else 0
            others += 0 if part.name.startswith("text_encoder") else size
    transformer = outside + sum(blocks.values())
    return Sizes(
        transformer,
        outside,
        max(blocks.values(), default=0),
        text,
        others,
        None if weights == AS_LOADED else int(packed),
    )


def size_in_bits(shape: Sequence[int], size: int, weights: str) -> float:
    """Bytes of a block's tensor of `size` bytes, held as `weights` say. A tensor of two dimensions
    counts as a linear's weight.
    """
    if weights == AS_LOADED or len(shape) != 2:
        return size
    return packed_bytes(shape[0], shape[1], STORED_WEIGHTS[weights].bits)


def component_size(folder: Path, wide: int) -> int:
    """Bytes of a component's weights at `wide` bytes a number; 0 where it has none."""
    files = list(folder.glob("*.safetensors"))
    if not files:
        return 0
    try:
        tensors = headers(folder).values()
    except BadInput:  # of several variants, say: at most all of them
        return sum(file.stat().st_size for file in files)
    return sum(numel(list(info.shape)) * wide for info in tensors)


# --- loading --------------------------------------------------------------------------------------


def load_placed(
    path: Path,
    placement: Placement,
    *,
    device: str = "cpu",
    dtype: str | torch.dtype | None = None,
    cache: Path | None = None,
    ahead: Sequence[Prompts] = (),
    weights: str = AS_LOADED,
) -> Pipeline:
    """A pipeline folder, ready to sample, held as the placement says; samples what
    `load_pipeline`'s does, bit for bit, unless its weights are packed (specs.teacher_weights).

    cache: folder for what text encoders give. ahead: what is going to be sampled, encoded before
    the transformer is loaded; other prompts load the text encoders again when they come.
    """
    if not placement.text_first and weights == AS_LOADED:
        return load_pipeline(path, device=device, dtype=dtype)
    folder = check_pipeline_folder(path)
    load_as = load_dtype(folder, device, dtype)
    pipe = without_weights(path, folder, device, load_as, placement.text_first)
    if placement.text_first and hasattr(pipe, "encode_prompt"):  # not of class-conditional models
        encodings = PromptEncodings(pipe, path, cache, load_as)
        setattr(pipe, ENCODINGS, encodings)
        for request in ahead:
            encodings.encode_ahead(request)
        encodings.free()
    pipe.transformer = load_transformer(
        folder, device=device, dtype=load_as, streamed=placement.streamed, weights=weights
    )
    return pipe


def without_weights(
    path: Path, folder: Path, device: str, dtype: torch.dtype, text_first: bool = True
) -> Pipeline:
    """A pipeline whose transformer has no weights yet; text_first: without text encoders."""
    name = str(read_config(folder / "config.json")["_class_name"])
    cls = own_class(folder) or known_class(name)
    empty = unloaded_transformer(cls, folder, device=torch.device(device), dtype=dtype)
    left_out: dict[str, Any] = {"transformer": None}
    for part in path.iterdir():
        if text_first and part.is_dir() and part.name.startswith("text_encoder"):
            left_out[part.name] = None
    with quiet():
        pipe = load_stock_pipeline(path, dtype, variant=pipeline_variant(path), **left_out)
        pipe = with_transformer(pipe, empty)
    return ready(pipe, path, device)


def free_text_encoders(pipe: Pipeline) -> None:
    """Let the text encoders of a placed pipeline go; nothing is done for one that is held whole."""
    encodings = getattr(pipe, ENCODINGS, None)
    if encodings is not None:
        encodings.free()
