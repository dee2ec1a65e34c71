"""`workbench quantize`."""

from __future__ import annotations

from typing import ClassVar

from . import fields
from .base import VerbSpec, option
from .quantized_forms import FormName


class QuantizeSpec(VerbSpec):
    """Write a student again with the linears of its blocks in fewer bits.

    Norms, embeddings, the output linear, low-rank factors of modulation and the blocks that
    `--keep-by` names stay in bf16 (docs/quantize.md).
    """

    verb: ClassVar[str] = "quantize"
    student: str = option(
        about="The student: a folder, or its name in the workspace; a teacher will do, too.",
        label="Student",
        positional=True,
        metavar="STUDENT",
        place="model",
    )
    to: FormName = option(
        about="Form of the weights: int8 and int4 (read by torchao), gguf-q8_0 and gguf-q4_0 (gguf), "
        "nf4 (bitsandbytes).",
        label="Form of the weights",
    )
    out: str | None = fields.out("the quantised student")
    keep_by: str | None = option(
        None,
        "Sensitivity map of this student with edit int4, a file or its id in the workspace: the "
        "blocks that lose most stay in bf16.",
        label="Keep blocks by a map",
        metavar="MAP",
        place="file-or-name",
        usual="no block is kept",
        advanced=True,
    )
    at_most: float | None = option(
        None,
        "With --keep-by: largest sum of the scores of the blocks that are quantised, lowest first.",
        label="Sum of scores at most",
        unit="of the map",
        ge=0,
        advanced=True,
    )
