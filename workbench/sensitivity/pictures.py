"""Metric `image`: what finished pictures lose when a block is edited, as HierarchicalPrune's
contribution analysis does (arXiv 2508.04663; its code replaces a block or part by a pass-through,
samples anew and scores by HPSv2).

A whole generation per edit and block: the most expensive metric, and the only one that measures
what a person sees.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.access import Pipeline
from ..models.blocks import Place, forwards
from ..models.sampling import generate
from ..records import BadInput, Progress, SensitivityMap, Teacher
from ..records.picture_size import Size
from .edits import Edit, parse_edits
from .partial import Partial
from .profiling import sensitivity_map
from .results import CallScores, Key, Measurement, mean_row
from .scan import Scan
from .table import METRICS

if TYPE_CHECKING:
    from PIL import Image

# pictures, the teacher's own -> one value a picture, higher = better
Score = Callable[[Sequence["Image.Image"], Sequence["Image.Image"]], Sequence[float]]


@dataclass(frozen=True)
class Generation:
    """How pictures are sampled: one per (prompt, seed) pair, the same for every edit."""

    seeds: Sequence[int]
    steps: int
    guidance: float
    size: Size
    batch: int = 8
    negative: str = " "


def profile_pictures(
    pipe: Pipeline,
    teacher: Teacher,
    prompts: Sequence[str],
    *,
    generation: Generation,
    score: Score,
    scorer: str,
    edits: Sequence[str | Edit] | None = None,
    metric: str = "image",
    partial: Path | None = None,
    measured: Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Score of the teacher's pictures minus that of the edited model's, per edit and block: higher
    = keep; timestep null. The last Progress has the SensitivityMap.

    prompts: one per seed of `generation`. score: see Score; `scorer` is its name. Standard errors
    are of the paired differences. partial: where the scores of finished edits are kept. Raises
    BadInput where a score is not finite, and for edits that apply to no block.
    """
    began = time.perf_counter()
    scan = PictureScan(pipe, teacher, prompts, generation, edits, metric)
    edit_names = [edit.name for edit in scan.scan.edits]
    how = [scorer, str(list(prompts)), str(asdict(generation))]
    kept = Partial(partial, teacher.fingerprint, [*edit_names, *how], metric)
    scan.check()
    own = scan.pictures()
    baseline = finite(score(own, own), "no edit")
    scores: dict[Key, list[float]] = {}
    for step, (edit, place) in enumerate(scan.work, 1):
        what = f"{edit.name} of {place[0]} block {place[1]}"
        name = f"{place[0]} {place[1]} {edit.name}"
        losses = kept.get(name)
        if losses is None:
            values = finite(score(scan.pictures(edit, place), own), what)
            losses = [before - after for before, after in zip(baseline, values, strict=True)]
            kept.put(name, losses)
        scores[Key(*place, edit.name)] = losses
        metrics = {"block": place[1], "score": sum(losses) / len(losses)}
        yield Progress(step=step, total=len(scan.work), message=what, metrics=metrics)
    found = Measurement(
        [mean_row(key, values) for key, values in scores.items()],
        [CallScores(0, None, scores, tuple(prompts))],
        {"scorer": scorer, "baseline": sum(baseline) / len(baseline), "samples": len(prompts)},
        steps=len(scan.work),
    )
    record = picture_map(teacher, metric, found, measured or {}, scorer)
    record = record.model_copy(update={"seconds": time.perf_counter() - began})
    yield Progress(step=found.steps, total=found.steps, message="done", result=record)


class PictureScan:
    """Samples the pictures of the edited models."""

    def __init__(
        self,
        pipe: Pipeline,
        teacher: Teacher,
        prompts: Sequence[str],
        generation: Generation,
        edits: Sequence[str | Edit] | None,
        metric: str,
    ) -> None:
        self.pipe = pipe
        self.prompts = prompts
        self.generation = generation
        chosen = METRICS[metric].edits if edits is None else edits
        self.scan = Scan(pipe.transformer, parse_edits(chosen, teacher))
        self.work: list[tuple[Edit, Place]] = []
        for edit in self.scan.edits:
            self.work += [(edit, place) for place in self.scan.places(edit)]

    def check(self) -> None:
        if not self.work:
            raise BadInput(
                "no block that these edits apply to", "an edit of this family", "correct --edits"
            )

    def pictures(self, edit: Edit | None = None, place: Place | None = None) -> list[Image.Image]:
        """The pictures of the model with one edit; without one, the teacher's own."""
        changes = []
        if edit is not None and place is not None:
            changes = self.scan.changes(edit, place)
        pictures: list[Image.Image] = []
        with forwards(changes):
            for batch in generate(self.pipe, self.prompts, **asdict(self.generation)):
                pictures += batch
        return pictures


def picture_map(
    teacher: Teacher, metric: str, found: Measurement, measured: Mapping[str, Any], scorer: str
) -> SensitivityMap:
    record = sensitivity_map(teacher, metric, found, measured)
    return record.model_copy(update={"unit": f"{METRICS[metric].unit} ({scorer})"})


def finite(values: Sequence[float], what: str) -> list[float]:
    """Raises BadInput where a scorer's value is not finite."""
    if not all(math.isfinite(value) for value in values):
        raise BadInput(
            f"the scorer's value is not finite with {what}",
            "finite numbers",
            "choose another scorer, or leave this edit out",
        )
    return [float(value) for value in values]
