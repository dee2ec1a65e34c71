"""Votes as a table: one line per vote, with what was shown."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..records import Study, Vote
from .create import FILE
from .votes import read

COLUMNS = (
    "rater",
    "position",
    "kind",
    "check",
    "passed",
    "prompt",
    "category",
    "seed",
    "left",
    "right",
    "x",
    "model",
    "choice",
    "chosen",
    "correct",
    "quality",
    "alignment",
    "seconds",
    "time",
)


def votes_csv(folder: Path) -> str:
    """All votes of a study, excluded raters' and attention checks too, in UTF-8 text with a header.

    left, right, x: models of pairs and ABX; model: of ratings. chosen: the model that was chosen,
    empty for a tie. passed: of attention checks. seconds: that the rater took. time: Unix time.
    """
    study = Study.load(folder / FILE)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for _, vote in sorted(read(folder).votes.items()):
        writer.writerow(csv_row(study, vote))
    return text.getvalue()


def csv_row(study: Study, vote: Vote) -> dict[str, object]:
    items = study.checks if vote.check else study.items
    row = study.rows[items[vote.item].row]
    return {
        "rater": vote.rater + 1,
        "position": vote.position + 1,
        "kind": study.kind,
        "check": int(vote.check),
        "passed": int(vote.passes_check) if vote.check else "",
        "prompt": plain(row.prompt),
        "category": plain(row.category),
        "seed": row.seed,
        "left": vote.slots.get("a", ""),
        "right": vote.slots.get("b", ""),
        "x": vote.slots.get("x", ""),
        "model": vote.slots.get("one", ""),
        "choice": vote.choice or "",
        "chosen": vote.chosen or "",
        "correct": int(vote.is_correct) if "x" in vote.slots else "",
        "quality": vote.quality or "",
        "alignment": vote.alignment or "",
        "seconds": vote.seconds if vote.seconds is not None else "",
        "time": f"{vote.time:.3f}",
    }


def plain(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
