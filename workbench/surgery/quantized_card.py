"""README.md of a quantised student: what is in fewer bits, its size, and how it loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..families import by_class, is_hybrid
from ..models.quantized import gguf_file
from ..records import Card, Quantization
from ..specs.quantized_forms import QUANTIZED_FORMS

RETENTION = "`workbench compare TEACHER FOLDER` measures what it keeps."


def model_card(card: Card, found: Quantization, config: dict[str, Any], pipeline: bool) -> str:
    """The text. config: of the transformer, as it was written."""
    form = QUANTIZED_FORMS[found.to]
    kept = "\n".join(f"- {what}: {dtype}" for what, dtype in found.kept.items())
    if found.kept_blocks:
        kept += "\n- blocks kept: " + ", ".join(f"`{place}`" for place in found.kept_blocks)
    code = gguf_code(config, pipeline) if form.is_gguf else code_of(card, pipeline)
    name = short(card.original)
    return f"""---
library_name: diffusers
tags: [text-to-image, pruned, quantized, dit-workbench]
---

# {name}, {card.parameters:,} parameters, {found.to}

Made from the student `{short(found.source)}` of `{name}`. {form.about}
{found.packed:,} parameters, those of the linears in blocks, are in fewer bits. The transformer's
weights take {found.bytes / 1e6:,.1f} MB, {found.ratio:.3f} of what they take in bf16.
{RETENTION}

Kept as they were:

{kept}

It loads with diffusers and {form.library} (`pip install {form.library}`):

```python
{code}
```

`card.json` has its lineage.
"""


def code_of(card: Card, pipeline: bool) -> str:
    """diffusers reads the form off config.json."""
    name = "DiffusionPipeline" if pipeline else "AutoModel"
    trust = "" if card.stock else ", trust_remote_code=True"
    return f"""import torch
from diffusers import {name}
model = {name}.from_pretrained("FOLDER_OR_HUB_ID", dtype=torch.bfloat16{trust})"""


def gguf_code(config: dict[str, Any], pipeline: bool) -> str:
    """A GGUF file has to be named; its config lies beside it."""
    class_name = str(config["_class_name"])
    inner = "FOLDER/transformer" if pipeline else "FOLDER"
    found = f"from diffusers import {by_class(class_name).transformer} as Transformer"
    if is_hybrid(class_name):
        module = str(config["auto_map"]["AutoModel"]).partition(".")[0]
        found = f"""from diffusers.utils.dynamic_modules_utils import get_class_from_dynamic_module
Transformer = get_class_from_dynamic_module("{inner}", "{module}.py", "{class_name}")"""
    lines = f"""import torch
from diffusers import DiffusionPipeline, GGUFQuantizationConfig
{found}
transformer = Transformer.from_single_file(
    "{inner}/{gguf_file.NAME}",
    config="{inner}",
    quantization_config=GGUFQuantizationConfig(compute_dtype=torch.bfloat16),
    dtype=torch.bfloat16,
)"""
    if not pipeline:
        return lines
    trust = ", trust_remote_code=True" if is_hybrid(class_name) else ""
    return f"""{lines}
pipe = DiffusionPipeline.from_pretrained(
    "FOLDER", transformer=transformer, dtype=torch.bfloat16{trust}
)"""


def short(source: str) -> str:
    """A Hub id or a bundled teacher as it is; of a folder on this machine only its name."""
    return Path(source).name if Path(source).is_absolute() else source
