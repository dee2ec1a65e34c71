"""Metric `image`: what finished pictures lose when a block is edited, as HierarchicalPrune's
contribution analysis does (arXiv 2508.04663; its code replaces a block or part by a pass-through,
samples anew and scores by HPSv2).

A whole generation per edit and block: the dearest metric, and the only one that sees what a person
sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models import Pipeline, generate
from ..models.blocks import Place, forwards
from ..records import BadInput, Progress, Row, SensitivityMap, Teacher
from .metrics import METRICS
from .naming import Edit, parse_edit
from .partial import Partial
from .scan import Scan
from .stability import stability

if TYPE_CHECKING:
    from PIL import Image

# pictures, the teacher's own -> higher = better
Score = Callable[[Sequence["Image.Image"], Sequence["Image.Image"]], Sequence[float]]


def profile_pictures(
    pipe: Pipeline,
    teacher: Teacher,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    score: Score,
    scorer: str,
    steps: int,
    guidance: float,
    size: int,
    edits: Sequence[str] = ("drop",),
    batch: int = 8,
    partial: Path | None = None,
    measured: Mapping[str, Any] | None = None,
    different: int | None = None,
) -> Iterator[Progress]:
    """Score of the teacher's pictures minus that of the edited model's, per edit and block: higher
    = keep; timestep null.

    One picture per (prompt, seed) pair, the same for every edit. `score(pictures, teacher's)` gives
    a value a picture, higher = better, in the scorer's unit. Standard errors are of the paired
    differences. `different` prompts: see stability; `partial`: see profile.
    """
    began = time.perf_counter()
    scan = Scan(pipe.transformer, [parse_edit(name, teacher) for name in dict.fromkeys(edits)])
    how: dict[str, Any] = {
        "seeds": seeds,
        "steps": steps,
        "guidance": guidance,
        "size": size,
        "batch": batch,
    }
    memory = Partial(
        partial, teacher.fingerprint, [*edits, scorer, str(list(prompts)), str(how)], "image"
    )

    def pictures(edit: Edit | None = None, place: Place | None = None) -> list[Image.Image]:
        changes = scan.changes(edit, place) if edit and place else []
        with forwards(changes):
            return [image for images in generate(pipe, prompts, **how) for image in images]

    work = [(edit, place) for edit in scan.edits for place in scan.places(edit)]
    own = pictures()
    baseline = checked(score(own, own), "no edit")
    scores: dict[str, list[float]] = {}
    for step, (edit, place) in enumerate(work, 1):
        key = f"{place[0]} {place[1]} {edit.name}"
        held = memory.get(key)
        if held is None:
            values = checked(
                score(pictures(edit, place), own), f"{edit.name} of {place[0]} block {place[1]}"
            )
            held = memory.put(
                key, {"scores": [a - b for a, b in zip(baseline, values, strict=True)]}
            )
        scores[key] = held["scores"]
        yield Progress(
            step=step,
            total=len(work),
            message=f"{edit.name} of {place[0]} block {place[1]}",
            metrics={"block": place[1], "score": sum(held["scores"]) / len(held["scores"])},
        )
    if not work:
        raise BadInput(
            "no block that these edits apply to", "an edit of this family", "correct --edits"
        )
    told = {
        **(measured or {}),
        "scorer": scorer,
        "baseline": sum(baseline) / len(baseline),
        "samples": len(prompts),
        "stability": stability([(0, None, scores)], prompts=different),
    }
    rows = [_row(key, values) for key, values in scores.items()]
    record = SensitivityMap(
        teacher=teacher.name,
        fingerprint=teacher.fingerprint,
        family=teacher.family,
        metric="image",
        unit=f"{METRICS['image'].unit} ({scorer})",
        direction=METRICS["image"].direction,
        rows=rows,
        measured=told,
        seconds=time.perf_counter() - began,
    )
    yield Progress(step=len(work), total=len(work), message="done", result=record)


def checked(values: Sequence[float], what: str) -> list[float]:
    if not all(value == value and abs(value) != float("inf") for value in values):
        raise BadInput(
            f"the scorer's value is not finite with {what}",
            "finite numbers",
            "choose another scorer, or leave this edit out",
        )
    return [float(value) for value in values]


def _row(key: str, values: Sequence[float]) -> Row:
    stack, block, edit = key.split(" ")
    mean = sum(values) / len(values)
    spread = (
        (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        if len(values) > 1
        else None
    )
    return Row(
        stack=stack,
        block=int(block),
        edit=edit,
        score=mean,
        stderr=None if spread is None else spread / len(values) ** 0.5,
    )
