"""LoRA files: pairs of factors by diffusers' module names, read from diffusers' keys and from those
of kohya and ComfyUI, written with diffusers' keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..families.original_names import AS_IN_DIFFUSERS, ORIGINAL_NAMES
from ..records import BadInput, check_regular, draft_of, jsonfile

ENDS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_A.default.weight": "a",
    ".lora_B.default.weight": "b",
    ".lora_down.weight": "a",
    ".lora_up.weight": "b",
    ".lora.down.weight": "a",
    ".lora.up.weight": "b",
    ".alpha": "alpha",
    ".dora_scale": "dora",
}
PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "lora_unet_",
    "lora_transformer_",
)
TEXT = ("text_encoder", "lora_te")  # of the text encoders, which a student shares with its teacher
METADATA = "lora_adapter_metadata"  # where diffusers writes the scale, in the file's header
WEIGHT = ".weight"


@dataclass(frozen=True)
class Pair:
    """A change of a linear: b @ a is added to its weight (out, in). a: (r, in), b: (out, r).

    offset: what is added to its bias, (out,).
    """

    a: torch.Tensor
    b: torch.Tensor
    offset: torch.Tensor | None = None

    @property
    def square(self) -> float:
        """The squared Frobenius norm of the change."""
        left = self.b.double().T @ self.b.double()
        right = self.a.double() @ self.a.double().T
        return float((left * right.T).sum())


@dataclass
class Lora:
    """pairs: diffusers' module -> its change, scale included. others: tensors of text encoders, by
    their keys. unknown: key of what is not a pair of this model -> what it is.
    """

    pairs: dict[str, Pair] = field(default_factory=dict)
    others: dict[str, torch.Tensor] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Place:
    """Where a module of a LoRA file lies in diffusers' model: in the rows of several linears, one
    after the other. swapped: its halves of rows change places.
    """

    modules: tuple[str, ...]
    rows: tuple[int, ...]
    swapped: bool = False


def read_lora(path: Path | str, family: str, shapes: Mapping[str, list[int]]) -> Lora:
    """The LoRA of a model whose tensors have these shapes.

    Raises BadInput for a file without a pair for the model, and for one that cannot be read.
    """
    tensors, scales = tensors_of(Path(path))
    places = known_places(family, shapes)
    found = Lora()
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        module, kind = key_parts(key)
        if key.startswith(TEXT):
            found.others[key] = tensor
        elif kind:
            parts.setdefault(module, {})[kind] = tensor
        else:
            found.unknown[key] = "not a LoRA pair"
    for module, pair in parts.items():
        fault = fault_of(pair, places.get(plain(module)))
        if fault:
            found.unknown[module] = fault
            continue
        found.dtype = pair["a"].dtype
        scaled = pair["b"].float() * scale_of(module, pair, scales)
        found.pairs |= spread(pair["a"].float(), scaled, places[plain(module)])
    if not found.pairs:
        first = next(iter(found.unknown.items()), ("no key", "it is empty"))
        raise BadInput(
            f"{path} has no LoRA pair for a {family} ({first[0]}: {first[1]})",
            "a LoRA of the student's teacher, with keys of diffusers, kohya or ComfyUI",
            "choose the LoRA's own base model",
        )
    return found


def tensors_of(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """All tensors of the file, and what diffusers wrote of their scale."""
    check_regular(path, "LoRA")
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            written = (file.metadata() or {}).get(METADATA)
            scales = jsonfile.parse(written) if written else {}
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read ({str(error)[:80]})", "a safetensors file", "copy it again"
        ) from None
    return tensors, scales if isinstance(scales, dict) else {}


def key_parts(key: str) -> tuple[str, str]:
    """The module that a key belongs to, and a, b, alpha or dora; ("", "") for another key."""
    for end, kind in ENDS.items():
        if key.endswith(end):
            return key.removesuffix(end), kind
    return "", ""


def plain(module: str) -> str:
    """A module's name without what programs put before it, with dots as underscores."""
    for prefix in PREFIXES:
        module = module.removeprefix(prefix)
    return module.replace(".", "_")


def known_places(family: str, shapes: Mapping[str, list[int]]) -> dict[str, Place]:
    """Every linear of the model, by its name in diffusers and by the original one, both as `plain`
    gives them.
    """
    places = {}
    for names in (ORIGINAL_NAMES.get(family, AS_IN_DIFFUSERS), AS_IN_DIFFUSERS):
        for tensor in names.tensors(list(shapes)):
            if tensor.name.endswith(WEIGHT) and len(shapes[tensor.sources[0]]) == 2:
                places[plain(tensor.name.removesuffix(WEIGHT))] = Place(
                    tuple(source.removesuffix(WEIGHT) for source in tensor.sources),
                    tuple(shapes[source][0] for source in tensor.sources),
                    tensor.swapped,
                )
    return places


def fault_of(pair: Mapping[str, torch.Tensor], place: Place | None) -> str:
    """Why these tensors are no pair of the model; empty where they are one."""
    if place is None:
        return "the model has no such linear"
    if "dora" in pair:
        return "DoRA, whose magnitudes belong to the teacher's weights"
    if "a" not in pair or "b" not in pair:
        return "half a pair"
    a, b = pair["a"], pair["b"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or b.shape[0] != sum(place.rows):
        return f"shapes {list(a.shape)} and {list(b.shape)}"
    return ""


def scale_of(module: str, pair: Mapping[str, torch.Tensor], scales: Mapping[str, Any]) -> float:
    """What b @ a is multiplied by: alpha / rank, of the pair's own alpha or of the file's."""
    rank = pair["a"].shape[0]
    if "alpha" in pair:
        return float(pair["alpha"]) / rank
    of_model = "transformer."
    named = {
        key.removeprefix(of_model): value
        for key, value in scales.items()
        if key.startswith(of_model)
    }
    inner = module.removeprefix(of_model)
    alpha = (named.get("alpha_pattern") or {}).get(inner, named.get("lora_alpha"))
    if alpha is None:
        return 1.0
    return float(alpha) / (math.sqrt(rank) if named.get("use_rslora") else rank)


def spread(a: torch.Tensor, b: torch.Tensor, place: Place) -> dict[str, Pair]:
    """The pair as one for each linear that diffusers keeps apart."""
    if place.swapped:
        b = torch.cat(b.chunk(2)[::-1])
    pairs = {}
    for module, rows in zip(place.modules, b.split(list(place.rows)), strict=True):
        if len(place.rows) == 1 or bool(rows.any()):  # zeros: a LoRA of the others alone
            pairs[module] = Pair(a, rows)
    return pairs


def write_lora(lora: Lora, path: Path, metadata: Mapping[str, str]) -> None:
    """Write it with diffusers' keys, the scale multiplied into b, in the dtype that it was read in;
    offsets of biases stay in float32.
    """
    tensors = dict(lora.others)
    for module, pair in lora.pairs.items():
        # copies: pairs that were split of one share their a
        tensors[f"transformer.{module}.lora_A.weight"] = pair.a.to(lora.dtype, copy=True)
        tensors[f"transformer.{module}.lora_B.weight"] = pair.b.to(lora.dtype).contiguous()
        if pair.offset is not None:
            tensors[f"transformer.{module}.lora_B.bias"] = pair.offset.float().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(path) as draft:
        save_file(tensors, draft, dict(metadata))
