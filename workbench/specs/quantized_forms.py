"""The forms that `workbench quantize` writes: one row per form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

FormName = Literal["int8", "int4", "gguf-q8_0", "gguf-q4_0", "nf4"]


@dataclass(frozen=True)
class QuantizedForm:
    """One form of quantised weights.

    bits: per packed weight, scales of groups included, those of whole rows not. group: weights of a
    row that share a scale, of which a row must have a whole number; 1 where any row will do.
    library: what diffusers reads it with.
    """

    name: str
    about: str
    bits: float
    group: int
    library: str

    @property
    def is_gguf(self) -> bool:
        return self.library == "gguf"


QUANTIZED_FORMS: Mapping[str, QuantizedForm] = {
    row.name: row
    for row in (
        QuantizedForm("int8", "8 bits, symmetric, one float32 scale per row.", 8, 1, "torchao"),
        QuantizedForm(
            "int4",
            "4 bits, a bfloat16 scale and offset per 128 weights; runs on GPUs with mslk alone.",
            4.25,
            128,
            "torchao",
        ),
        QuantizedForm("gguf-q8_0", "GGUF Q8_0: a float16 scale per 32 weights.", 8.5, 32, "gguf"),
        QuantizedForm("gguf-q4_0", "GGUF Q4_0: a float16 scale per 32 weights.", 4.5, 32, "gguf"),
        QuantizedForm(
            "nf4", "4-bit NormalFloat, a float32 scale per 64 weights.", 4.5, 1, "bitsandbytes"
        ),
    )
}
assert get_args(FormName) == tuple(QUANTIZED_FORMS)
