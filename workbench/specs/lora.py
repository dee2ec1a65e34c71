"""`workbench lora`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec, option


class LoraSpec(VerbSpec):
    """Move a LoRA of a teacher to its student: block numbers, merged blocks, streams and factored
    modulation as the student's plan has them.

    The result is in diffusers' format. Every pair is accounted for: kept, averaged, projected, or
    dropped and why (docs/releasing.md).
    """

    verb: ClassVar[str] = "lora"
    lora: str = option(
        about="The LoRA: a safetensors file with keys of diffusers, kohya or ComfyUI.",
        label="LoRA",
        positional=True,
        metavar="LORA.safetensors",
        place="file",
    )
    student: str = option(
        about="The student of the model that the LoRA was trained on: a folder, or its name in the "
        "workspace.",
        label="Student",
        metavar="STUDENT",
        place="model",
    )
    out: str | None = fields.out("the student's LoRA, a safetensors file,")
    conditioning: str | None = fields.conditioning()
