"""The model card of a student folder (README.md): what it is made of, what it costs, how it loads."""

from __future__ import annotations

from pathlib import Path

from ..plans import picture
from ..records import Card, Plan, Span, Teacher

PICTURE = "plan.svg"


def model_card(card: Card, plan: Plan, teacher: Teacher, pipeline: bool) -> dict[str, str]:
    """File name -> text: the card and its picture."""
    return {"README.md": _text(card, plan, teacher, pipeline), PICTURE: picture(plan, teacher)}


def _text(card: Card, plan: Plan, teacher: Teacher, pipeline: bool) -> str:
    share = 100 * card.parameters / card.original_parameters
    depths = ", ".join(
        f"{path}: {teacher.stack(path).depth} → {len(spans)} blocks"
        for path, spans in plan.stacks.items()
    )
    made = [
        f"- `{path}` {number}: {_words(span)}"
        for path, spans in plan.stacks.items()
        for number, span in enumerate(spans)
        if not span.plain
    ]
    trust = "" if card.stock else ", trust_remote_code=True"
    name = "DiffusionPipeline" if pipeline else "AutoModel"
    rule = plan.origin.get("recipe") or plan.origin.get("rule") or "hand"
    code = (
        ""
        if card.stock
        else "\nIts blocks need the one modeling file that lies beside the weights.\n"
    )
    return (
        f"""---
library_name: diffusers
tags: [text-to-image, pruned, dit-workbench]
---

# {_name(card.original).split("/")[-1]}, {share:.0f} % of its parameters

A smaller `{teacher.class_name}`, made of `{_name(card.teacher)}`: {card.parameters:,} of {card.original_parameters:,} parameters
({depths}).
Planned by {rule}. The weights come from the plan alone until it is distilled; `card.json` tells of training and scores.

![Teacher blocks above, student blocks below]({PICTURE})

```python
from diffusers import {name}
model = {name}.from_pretrained("FOLDER_OR_HUB_ID"{trust})
```
{code}
Student blocks that are not plain copies (`plan.yaml` has the whole plan):

"""
        + ("\n".join(made) or "- none")
        + "\n"
    )


def _name(source: str) -> str:
    """A Hub id or a bundled teacher as it is; of a folder on this machine only its name."""
    return Path(source).name if Path(source).is_absolute() else source


def _words(span: Span) -> str:
    blocks = (
        f"teacher block {span.first}"
        if len(span) == 1
        else f"teacher blocks {span.first} to {span.last}, init {span.init}"
    )
    more = [f"gain {span.gain:g}"] * (span.gain != 1) + [f"{span.stream}-stream"] * bool(
        span.stream
    )
    more += ["without " + ", ".join(span.drop)] * bool(span.drop)
    return ", ".join([blocks, *more])
