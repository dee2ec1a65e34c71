"""The model card of a student folder (README.md): what it is made of, its size, how it loads."""

from __future__ import annotations

from pathlib import Path

import torch

from ..plans import SAVES, is_factored, picture
from ..plans.describe_span import span_words
from ..records import Card, Plan, Span, Teacher

PICTURE = "plan.svg"


def model_card(
    card: Card, plan: Plan, teacher: Teacher, pipeline: bool, dtype: torch.dtype
) -> dict[str, str]:
    """File name -> text: the card and its picture. dtype: of the weights; loaded without it, diffusers
    takes float32 and transformers what is stored, and the two do not go together.
    """
    text = _text(card, plan, teacher, pipeline, dtype)
    return {"README.md": text, PICTURE: picture(plan, teacher)}


def _text(card: Card, plan: Plan, teacher: Teacher, pipeline: bool, dtype: torch.dtype) -> str:
    share = 100 * card.parameters / card.original_parameters
    depths = []
    blocks = []
    for path, spans in plan.stacks.items():
        depths.append(f"{path}: {teacher.stack(path).depth} → {len(spans)} blocks")
        for number, span in enumerate(spans):
            if not span.plain:
                blocks.append(f"- `{path}` {number}: {_words(span)}")
    name = "DiffusionPipeline" if pipeline else "AutoModel"
    rule = plan.origin.get("recipe") or plan.origin.get("rule") or "hand"
    trust = ", trust_remote_code=True"
    code = "\nIts blocks need the one modeling file that lies beside the weights.\n"
    if is_factored(plan):
        code += f"\n{SAVES}\n"
    if card.stock:
        trust = code = ""
    listed = "\n".join(blocks) or "- none"
    return f"""---
library_name: diffusers
tags: [text-to-image, pruned, dit-workbench]
---

# {_name(card.original).split("/")[-1]}, {share:.0f} % of its parameters

A smaller `{teacher.class_name}`, made of `{_name(card.teacher)}`: \
{card.parameters:,} of {card.original_parameters:,} parameters
({", ".join(depths)}).
Planned by {rule}. The weights come from the plan alone until it is distilled; \
`card.json` has what training and scores there were.

![Teacher blocks above, student blocks below]({PICTURE})

```python
import torch
from diffusers import {name}
model = {name}.from_pretrained("FOLDER_OR_HUB_ID", dtype={dtype}{trust})
```
{code}
Student blocks that are not plain copies (`plan.yaml` has the whole plan):

{listed}
"""


def _name(source: str) -> str:
    """A Hub id or a bundled teacher as it is; of a folder on this machine only its name."""
    return Path(source).name if Path(source).is_absolute() else source


def _words(span: Span) -> str:
    """What a student block is made of, in words."""
    blocks = f"teacher block {span.first}"
    if len(span) > 1:
        blocks = f"teacher blocks {span.first} to {span.last}"
    return ", ".join([blocks, *span_words(span)])
