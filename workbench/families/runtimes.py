"""Where students can run outside diffusers, and why some cannot: one row per program.

What each program counts from the file and what it takes for granted was read in its code (ComfyUI
v0.33, stable-diffusion.cpp 97d2990, ComfyUI-GGUF 795e451) and is to be held to it by
tests/release/test_real_loaders.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..plugins import Registry, registry
from .original_names import AS_IN_DIFFUSERS, ORIGINAL_NAMES, OriginalNames


@dataclass(frozen=True)
class Limit:
    """Fewer blocks than `at_least` in a stack are misread. config: only where the student's config
    has these values.
    """

    stack: str
    at_least: int
    reason: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loads:
    """How a program loads a family.

    original: under the names that its authors published it with, where those differ. fixed: values
    of the config that the program does not read but takes for granted. arch: what a GGUF file
    must call it.
    """

    original: bool = True
    fixed: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    arch: str = ""

    def names(self, family: str) -> OriginalNames:
        if not self.original:
            return AS_IN_DIFFUSERS
        return ORIGINAL_NAMES.get(family, AS_IN_DIFFUSERS)

    def obstacles(self, config: Mapping[str, Any], depths: Mapping[str, int]) -> Iterator[str]:
        """Why a student of this config and depth does not load; nothing where it does."""
        for key, value in self.fixed.items():
            if key in config and config[key] != value:
                yield f"it takes {key} {value} for granted; this student has {config[key]}"
        for limit in self.limits:
            applies = all(config.get(key) == value for key, value in limit.config.items())
            if applies and depths.get(limit.stack, 0) < limit.at_least:
                yield limit.reason


@dataclass(frozen=True)
class Runtime:
    """A program that runs students.

    title: its name in sentences. form: what is written for it: folder (diffusers' own), safetensors
    (one file) or gguf (one file). families: those that it loads. refused: why it does not load
    another, in words that follow "because"; otherwise: the same, of those that neither lists.
    place: where the file belongs, for the card.
    """

    title: str
    form: str  # folder | safetensors | gguf
    families: Mapping[str, Loads]
    refused: Mapping[str, str] = field(default_factory=dict)
    otherwise: str = ""
    place: str = ""
    about: str = ""

    def obstacles(
        self, family: str, config: Mapping[str, Any], depths: Mapping[str, int]
    ) -> list[str]:
        """Why a depth-only student does not load, in sentences; empty where it does."""
        if self.form == "folder":
            return []
        if family not in self.families:
            return [self.refused.get(family, self.otherwise)]
        return list(self.families[family].obstacles(config, depths))


HEAD_128 = {"attention_head_dim": 128}
QWEN = {"num_attention_heads": 24, **HEAD_128}
ZIMAGE = {"dim": 3840, "n_refiner_layers": 2}
NO_DUAL = "it recognises the family by its first dual-stream block, and this student has none"
DUAL = Limit("transformer_blocks", 1, NO_DUAL)
KLEIN = Limit(
    "single_transformer_blocks",
    48,
    "it takes a FLUX.2 without single-stream block 47 for FLUX.2 klein and gives it another text "
    "encoder",
    {"guidance_embeds": True},
)
SD3_WIDTH = "it takes the number of blocks from the width, as in the published models"
SD3_HEADS = "it takes the number of heads from the number of blocks"
COMFY = {
    "flux": Loads(fixed=HEAD_128, limits=(DUAL,), arch="flux"),
    "flux2": Loads(fixed=HEAD_128, limits=(DUAL,), arch="flux"),
    "qwenimage": Loads(fixed=QWEN, arch="qwen_image"),
    "zimage": Loads(fixed=ZIMAGE, arch="lumina2"),
    "lumina2": Loads(fixed={"hidden_size": 2304, "num_refiner_layers": 2}, arch="lumina2"),
    "auraflow": Loads(
        fixed={"num_attention_heads": 12, "attention_head_dim": 256},
        limits=(Limit("joint_transformer_blocks", 1, NO_DUAL),),
        arch="aura",
    ),
    "wan": Loads(fixed=HEAD_128, arch="wan"),
}
NOT_IN_COMFY = "it does not know the family under the names that diffusers gives its tensors"
SD_CPP = {
    "flux": Loads(fixed=QWEN, limits=(DUAL,), arch="flux"),
    "flux2": Loads(fixed=HEAD_128, limits=(DUAL, KLEIN), arch="flux"),
    "qwenimage": COMFY["qwenimage"],
    "qwenimage21": Loads(),
    "zimage": COMFY["zimage"],
}
FIVE = "a GGUF tensor has at most 4 dimensions, and the convolution of its patches has 5"
ROWS: dict[str, Runtime] = {
    "diffusers": Runtime(
        "diffusers",
        "folder",
        {},
        about="A folder for from_pretrained: any student of any family.",
    ),
    "comfyui": Runtime(
        "ComfyUI",
        "safetensors",
        COMFY,
        refused={
            "sd3": SD3_WIDTH,
            "qwenimage21": "only its newest version knows the family, which was not tried",
        },
        otherwise=NOT_IN_COMFY,
        place="ComfyUI/models/diffusion_models/",
        about="One safetensors file for the node Load Diffusion Model.",
    ),
    "sd.cpp": Runtime(
        "stable-diffusion.cpp",
        "safetensors",
        SD_CPP,
        refused={
            "sd3": SD3_HEADS,
            "wan": "it takes Wan models of 30 and of 40 blocks alone",
            "lumina2": "it takes it for Z-Image, whose feed-forward is narrower",
            "hunyuanimage": "it takes it for FLUX.1",
        },
        otherwise="it does not know the family",
        place="the path after --diffusion-model",
        about="One safetensors file for --diffusion-model.",
    ),
    "gguf": Runtime(
        "ComfyUI-GGUF",
        "gguf",
        {family: loads for family, loads in COMFY.items() if family != "wan"},
        refused={"sd3": SD3_WIDTH, "wan": FIVE},
        otherwise="its loader has no name for the family",
        place="ComfyUI/models/unet/",
        about="One GGUF file for the node Unet Loader (GGUF) of ComfyUI-GGUF; stable-diffusion.cpp "
        "reads it, too, for the families that it knows.",
    ),
}
RUNTIMES: Registry[Runtime] = registry("runtime")
