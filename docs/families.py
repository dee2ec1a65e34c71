"""Write docs/families.md: what works for each family, from the families table:
`python docs/families.py`.

`python docs/families.py --check` only says whether the page is current.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from workbench.families import FAMILIES, REFUSED, Family  # noqa: E402

PAGE = Path(__file__).with_name("families.md")
HEAD = """# What works for each family

Written by `python docs/families.py` from `workbench/families/table.py`; a test holds it current. A
number behind an entry is a note below the table.

| column | what it means | tested by |
|---|---|---|
| plan, build | `info`, `plan`, `build`; the student loads in stock diffusers | `tests/families/test_contract.py` |
| profile | a map from prompts, through the pipeline's own sampler | `tests/families/test_every_family_is_driven.py`, on sizes of ours and on those of diffusers' own tests |
| compare | pictures side by side, and while it trains | the same |
| on prompts | distillation on latents that the teacher samples | the same |
| on pictures | distillation on pictures with captions | the same |
| single | dual-stream blocks become single-stream | `tests/students/test_streams.py` |
| rank | modulation in two factors | `tests/students/test_modulation.py` |
| few steps | checkpoints that are known to be sampled in a few steps | `tests/models/test_sampling_defaults.py` |

"""
# (family, column) -> why not. A column's reason for every family is under "".
REASONS: dict[tuple[str, str], str] = {
    (
        "qwenimage21",
        "profile",
    ): "its pipeline has a Qwen3VLProcessor, which transformers cannot make "
    "without torchvision; the core environment is without, so its sampler has not been checked",
    ("wan", "on pictures"): "it is trained on videos, which the data sources do not read",
    ("", "single"): "its blocks have one stream, or its text and image share weights",
    ("flux2", "single"): "its dual-stream blocks share one modulation with each other, which a "
    "single-stream block has no part of",
    ("longcat", "single"): "no single-stream class has been written for it",
    ("ovis", "single"): "no single-stream class has been written for it",
    ("", "rank"): "its blocks have no large modulation linears of their own, or they see more than "
    "a vector per sample",
    ("", "few steps"): "none that its pipeline can sample is known",
}
NOTES = {
    "wan": "Wan 2.2 has two transformers. The folder `transformer` is the one that is worked on; "
    "`TEACHER/transformer_2` names the other for `info`, `plan` and `build`. Steps of the sampler "
    "that the other one makes are not measured. A picture of a video is its middle frame.",
    "dit": "Prompts are classes: a number or a label.",
    "cogview4": "Its pipeline pads prompts to the longest of a batch and does not say which tokens are padding: a prompt's "
    "embedding depends on its batch, in the pipeline as here.",
    "longcat": "Prompts are taken as written: the pipeline's rewriting by a language model is off.",
    "sana": "SANA Sprint (guidance_embeds) has the same transformer class and another sampler: it is described, planned and "
    "built; its pipeline takes no negative prompt, so sampling with guidance is refused, and so is distilling it.",
    "hunyuanimage": "Its guidance is a component of the pipeline (the guider), which gets the scale. "
    "The distilled one (use_meanflow) is profiled and compared, and refused by distill.",
}
Cell = Callable[[Family], bool | str]


def few(family: Family) -> str:
    return "; ".join(kind.about for kind in family.few_steps)


COLUMNS: dict[str, Cell] = {
    "plan, build": lambda family: True,
    "profile": lambda family: family.guidance is not None,
    "compare": lambda family: family.guidance is not None,
    "on prompts": lambda family: family.guidance is not None and family.inputs is not None,
    "on pictures": lambda family: bool(family.guidance and family.inputs and family.encoder),
    "single": lambda family: bool(family.single_block),
    "rank": lambda family: family.conditioning is not None,
    "few steps": few,
}


def page() -> str:
    """The whole page as Markdown. Raises KeyError for an empty cell without a reason."""
    columns = list(COLUMNS)
    lines = ["| family | transformer | " + " | ".join(columns) + " |"]
    lines.append("|---|---|" + "---|" * len(columns))
    notes: list[str] = []
    for name, family in FAMILIES.items():
        cells = [cell_of(name, family, column, notes) for column in columns]
        title = f"{name} {mark(NOTES[name], notes)}" if name in NOTES else name
        lines.append(f"| {title} | `{family.transformer}` | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    lines += ["", "## Refused", "", "| transformer | why |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in REFUSED.items()]
    return HEAD + "\n".join(lines) + "\n"


def cell_of(name: str, family: Family, column: str, notes: list[str]) -> str:
    """`yes`, the column's own words, or `no` with the number of the reason."""
    value = COLUMNS[column](family)
    if value:
        return value if isinstance(value, str) else "yes"
    return f"no {mark(reason_of(name, column), notes)}"


def reason_of(name: str, column: str) -> str:
    """Why a cell is empty: of this family, else of the column; what needs the sampler has the
    reason of `profile`.
    """
    for key in ((name, column), ("", column), (name, "profile")):
        if key in REASONS:
            return REASONS[key]
    raise KeyError(f"no reason in docs/families.py why {name} has no {column!r}")


def mark(note: str, notes: list[str]) -> str:
    """The number of a note, as it stands behind an entry."""
    if note not in notes:
        notes.append(note)
    return f"({notes.index(note) + 1})"


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text() != text:
            raise SystemExit("docs/families.md is stale: run python docs/families.py")
    else:
        PAGE.write_text(text)
