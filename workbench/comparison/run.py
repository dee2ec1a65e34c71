"""Models side by side: pictures, scores, sizes and speeds of the same prompts and seeds."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from .. import models
from ..models.placement import load_placed
from ..models.prompt_encodings import Prompts
from ..models.quantized.stored import stored_size
from ..records import (
    BadInput,
    Comparison,
    Difference,
    ModelResult,
    Progress,
    Score,
    write_atomic,
)
from ..training.guidance_gap import GuidanceGap
from . import page
from .gaps import Gaps
from .holding import WHOLE, Holding
from .pictures import Settings, load_latents, load_pngs, pictures_of
from .scorers.base import Scorer, score_pictures
from .statistics import Item, paired_difference, share_interval
from .suite import Suite
from .timing import Timed, milliseconds_per_step, step_calls, step_prompts

LOADERS: Mapping[str, Callable[[Sequence[Path]], Any]] = {
    "pictures": load_pngs,
    "latents": load_latents,
}


@dataclass(frozen=True)
class Entry:
    """A model of a comparison: its name on the page, its pipeline folder, and the guidance scale
    that it is sampled with (None: that of the settings). A student that was distilled on guided
    targets is sampled without.
    """

    name: str
    path: Path
    guidance: float | None = None

    def settings(self, settings: Settings) -> Settings:
        """How this model's pictures are sampled."""
        if self.guidance is None:
            return settings
        return replace(settings, guidance=self.guidance)


def compare(
    entries: Sequence[Entry],
    suite: Suite,
    scorers: Mapping[str, Scorer],
    settings: Settings,
    out: Path,
    held: Holding = WHOLE,
) -> Iterator[Progress]:
    """Sample every prompt with every seed from every model and score the pictures. The first model
    is the one that others are compared with. held: how, one model at a time.

    Result: the Comparison, also written to `out` as comparison.json with index.html. An interrupted
    comparison keeps the pictures it has. Raises BadInput, before any picture is sampled, for models
    of equal names, no seed, and what scorers miss.
    """
    check_names(entries, settings)
    started = time.monotonic()
    for scorer in scorers.values():
        scorer.prepare(settings.device)
    total = len(entries) * len(suite.items) * len(settings.seeds)
    sampled = Sampled(latents=any(scorer.takes == "latents" for scorer in scorers.values()))
    for count, message in sample_models(entries, suite, settings, out, held, sampled):
        yield Progress(step=count, total=total, message=message)
    yield Progress(step=total, total=total, message="timing")
    times = milliseconds_per_step(sampled.timed, settings.dtype, settings.device, held)
    results: list[ModelResult] = []
    table = Scoring(suite, settings, scorers, sampled.images, sampled.gaps, entries[0].name)
    for entry in entries:
        yield Progress(step=total, total=total, message=f"scoring {entry.name}")
        forwards = len(sampled.timed[entry.name].calls)
        results.append(table.result(entry, times[entry.name], forwards, results))
    comparison = Comparison(
        suite=suite.name,
        prompts=suite.prompts,
        categories=suite.categories,
        seeds=list(settings.seeds),
        steps=settings.steps,
        guidance=settings.guidance,
        size=settings.size,
        sampled_as=settings.sampled_as,
        negative=settings.negative,
        placement=held.placement.name,
        models=results,
        images={name: relative(files, out) for name, files in sampled.images.items()},
        seconds=time.monotonic() - started,
    )
    comparison.save(out / "comparison.json")
    write_atomic(out / "index.html", page.render(comparison))
    yield Progress(step=total, total=total, message="done", result=comparison)


@dataclass
class Sampled:
    """What sampling leaves, by model: its pictures, what its steps are timed with, and its guidance
    gap. latents: whether those of the pictures are kept, too.
    """

    latents: bool = False
    images: dict[str, list[Path]] = field(default_factory=dict)
    timed: dict[str, Timed] = field(default_factory=dict)
    gaps: dict[str, GuidanceGap | None] = field(default_factory=dict)


def sample_models(
    entries: Sequence[Entry],
    suite: Suite,
    settings: Settings,
    out: Path,
    held: Holding,
    sampled: Sampled,
) -> Iterator[tuple[int, str]]:
    """Fill `sampled`, one model in memory at a time; after each picture the count of all pictures so
    far, and a line of progress.
    """
    measure = Gaps(suite.prompts, settings)
    count = 0
    for number, entry in enumerate(entries):
        own = entry.settings(settings)
        pipe = load_placed(
            entry.path,
            held.placement,
            device=settings.device,
            dtype=settings.dtype,
            cache=held.cache,
            ahead=[
                asked_pictures(suite, own),
                step_prompts(suite.prompts[0], own),
                *measure.asked,
            ],
        )
        sampled.timed[entry.name] = Timed(entry.path, step_calls(pipe, suite.prompts[0], own))
        sampled.gaps[entry.name] = measure.measure(pipe)
        files = sampled.images[entry.name] = []
        folder = picture_folder(out, number, entry.name)
        how = (suite.prompts, own, folder)
        for file in pictures_of(pipe, entry.path, *how, latents=sampled.latents):
            files.append(file)
            count += 1
            yield count, f"{entry.name}: {len(files)} pictures"
        del pipe  # not held beside the next one, nor its cycles
        gc.collect()


def asked_pictures(suite: Suite, settings: Settings) -> Prompts:
    """The prompts of the pictures of one model."""
    pairs = list(product(suite.prompts, settings.seeds))
    return Prompts(
        [prompt for prompt, _ in pairs],
        [seed for _, seed in pairs],
        settings.steps,
        settings.guidance,
        settings.size,
        settings.batch,
        settings.negative,
    )


def check_names(entries: Sequence[Entry], settings: Settings) -> None:
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names) or not settings.seeds:
        raise BadInput(
            f"models {', '.join(names) or 'none'} with {len(settings.seeds)} seeds",
            "models of different names, at least one seed",
            "rename one: NAME=MODEL",
        )


def picture_folder(out: Path, number: int, name: str) -> Path:
    """Where the pictures of model `number` lie."""
    return out / "images" / f"{number}-{folder_name(name)}"


def folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60]


def relative(files: Sequence[Path], folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


@dataclass(frozen=True)
class Scoring:
    """Scores the pictures of each model, and compares them with the first model's."""

    suite: Suite
    settings: Settings
    scorers: Mapping[str, Scorer]
    images: Mapping[str, Sequence[Path]]
    gaps: Mapping[str, GuidanceGap | None]
    first: str

    def result(
        self, entry: Entry, milliseconds: float, forwards: int, before: Sequence[ModelResult]
    ) -> ModelResult:
        """One model's figures. before: those of the models before it, the first one's too."""
        scores = self.scores(entry.name)
        first = before[0].scores if before else scores
        shares = {}
        for name, score in scores.items():
            shares[name] = retention(score, first[name], self.scorers[name])
        parameters, size = stored_size(models.transformer_folder(entry.path))
        gap = self.gaps[entry.name]
        return ModelResult(
            name=entry.name,
            source=str(entry.path),
            parameters=parameters,
            bytes=size,
            ms_per_step=milliseconds,
            forwards_per_step=forwards,
            guidance=entry.settings(self.settings).guidance,
            guidance_gap=gap.ratio if gap else None,
            guidance_gap_cosine=gap.cosine if gap else None,
            scores=scores,
            retention=shares,
            retention_intervals=self.share_intervals(shares, scores, first) if before else {},
            difference=self.differences(scores, first) if before else {},
        )

    def scores(self, name: str) -> dict[str, Score]:
        if not self.scorers:
            return {}
        pairs: dict[str, tuple[Any, Any]] = {}
        for takes in {scorer.takes for scorer in self.scorers.values()}:
            load = LOADERS[takes]
            pairs[takes] = (load(self.images[name]), load(self.images[self.first]))
        scores = {}
        for label, scorer in self.scorers.items():
            own, reference = pairs[scorer.takes]
            scores[label] = score_pictures(scorer, own, self.items(), reference)
        return scores

    def items(self) -> list[Item]:
        """The item of each picture, numbered: two items may have the same prompt."""
        items: list[Item] = []
        for number, item in enumerate(self.suite.items):
            items += [{**item, "index": number}] * len(self.settings.seeds)
        return items

    def share_intervals(
        self,
        shares: Mapping[str, float | None],
        scores: Mapping[str, Score],
        first: Mapping[str, Score],
    ) -> dict[str, tuple[float, float]]:
        """Intervals of the shares, of the scorers that judge picture by picture."""
        intervals = {}
        for name, share in shares.items():
            own, others = scores[name].per_image, first[name].per_image
            if share is not None and own is not None and others is not None:
                interval = share_interval(own, others, self.items())
                if interval is not None:
                    intervals[name] = interval
        return intervals

    def differences(
        self, scores: Mapping[str, Score], first: Mapping[str, Score]
    ) -> dict[str, Difference]:
        """Paired differences to the first model, of the scorers that judge picture by picture."""
        differences = {}
        for name, score in scores.items():
            own, others = score.per_image, first[name].per_image
            if own is not None and others is not None:
                differences[name] = paired_difference(own, others, self.items())
        return differences


def retention(score: Score, first: Score, scorer: Scorer) -> float | None:
    """Share of the first model's score. None where that would not be a share of its quality: for
    likeness to the first model, for scores of which lower is better, and for a first model at 0.
    """
    if scorer.needs_reference or not score.higher_is_better or first.overall <= 0:
        return None
    return score.overall / first.overall
