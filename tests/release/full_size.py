"""Students of published models at full size, without weights: a file's header is real, its data a
hole that takes no space on the disk.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from workbench.families import FAMILIES
from workbench.families.original_names import AS_IN_DIFFUSERS, ORIGINAL_NAMES
from workbench.families.runtimes import RUNTIMES, Runtime
from workbench.models.headers import NAMES, TensorInfo
from workbench.models.layouts import config_layout
from workbench.models.quantized import gguf_file
from workbench.records import numel
from workbench.release.single_file import depths, file_layout, gguf_kinds

Tensors = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class FullSize:
    """A depth-only student of a published model. config: what differs from its class's defaults."""

    family: str
    about: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def whole_config(self) -> dict[str, Any]:
        return {"_class_name": FAMILIES[self.family].transformer, **self.config}


def flux(dual: int, single: int) -> FullSize:
    about = f"FLUX.1-dev, {dual} + {single} of 19 + 38"
    config = {"num_layers": dual, "num_single_layers": single, "guidance_embeds": True}
    return FullSize("flux", about, {**config, "attention_head_dim": 128})


SD35 = {"qk_norm": "rms_norm", "attention_head_dim": 64}
STUDENTS = {
    "qwen-image": FullSize("qwenimage", "Qwen-Image, 30 of 60", {"num_layers": 30}),
    "qwen-image-2.1": FullSize("qwenimage21", "Qwen-Image-2.1, 16 of 32", {"num_layers": 16}),
    "flux": flux(8, 38),
    "flux-mini": flux(5, 10),
    "flux-no-single": flux(19, 0),
    "flux-no-dual": flux(0, 38),
    "flux2-dev": FullSize(
        "flux2",
        "FLUX.2-dev, 8 + 24 of 8 + 48",
        {"num_layers": 8, "num_single_layers": 24, "guidance_embeds": True},
    ),
    "flux2-klein": FullSize(
        "flux2",
        "FLUX.2-klein-4B, 4 + 12 of 5 + 20",
        {
            "num_layers": 4,
            "num_single_layers": 12,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
    ),
    "sd3.5-large": FullSize(
        "sd3",
        "SD3.5-Large, 24 of 38",
        {
            **SD35,
            "num_layers": 24,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
        },
    ),
    "z-image": FullSize("zimage", "Z-Image, 15 of 30", {"n_layers": 15}),
    "lumina2": FullSize(
        "lumina2",
        "Lumina-Image-2.0, 13 of 26",
        {"num_layers": 13, "hidden_size": 2304, "cap_feat_dim": 2304, "num_kv_heads": 8},
    ),
    "auraflow": FullSize(
        "auraflow",
        "AuraFlow, 2 + 16 of 4 + 32",
        {"num_mmdit_layers": 2, "num_single_dit_layers": 16},
    ),
    "wan": FullSize(
        "wan",
        "Wan2.1-1.3B, 15 of 30",
        {"num_layers": 15, "num_attention_heads": 12, "ffn_dim": 8960},
    ),
    "hunyuanimage": FullSize(
        "hunyuanimage",
        "HunyuanImage-2.1, 10 + 20 of 20 + 40",
        {"num_layers": 10, "num_single_layers": 20},
    ),
    "cogview4": FullSize("cogview4", "CogView4, 14 of 28", {"num_layers": 14}),
    "sana": FullSize("sana", "SANA-1.6B, 10 of 20", {"num_layers": 10}),
    "pixart": FullSize("pixart", "PixArt-Sigma, 14 of 28", {"num_layers": 14}),
}


def obstacles(student: FullSize, runtime: str) -> list[str]:
    """What the table of runtimes says: why it does not load; empty where it does."""
    config = student.whole_config
    return RUNTIMES[runtime].obstacles(student.family, config, depths(config))


def layout(student: FullSize, runtime: Runtime) -> tuple[Tensors, dict[str, str]]:
    """dtype and shape of every tensor of the student's file for a runtime, and their GGUF types. A
    runtime that does not know the family gets the family's original names.
    """
    shapes = config_layout(student.whole_config, student.about).shapes
    source = {}
    for name, shape in shapes.items():
        source[name] = TensorInfo(Path(), "BF16", tuple(shape), 0, 0)
    names = ORIGINAL_NAMES.get(student.family, AS_IN_DIFFUSERS)
    if student.family in runtime.families:
        names = runtime.families[student.family].names(student.family)
    tensors = list(names.tensors(list(source)))
    found = dict(file_layout(tensors, source))
    return found, gguf_kinds(tensors, found, student.whole_config, "Q8_0")


def write_hole(path: Path, tensors: Tensors) -> None:
    """A safetensors file of these tensors whose data is a hole."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + numel(list(shape)) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_gguf_hole(path: Path, arch: str, tensors: Tensors, kinds: dict[str, str]) -> None:
    """A GGUF file of these tensors whose data is a hole."""
    shapes = {name: shape for name, (_, shape) in tensors.items()}
    gguf_file.open_writer(path, arch, kinds, shapes).close()
    size = path.stat().st_size
    for _, shape in tensors.values():
        size += 4 * numel(list(shape)) + 32  # at most, with what aligns it
    os.truncate(path, size)
