"""A benchmark's run on disk: its pictures in its layout, and its results in the comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ...models.placement import load_placed
from ...records import BadInput, Comparison, ModelResult, Progress, write_atomic
from ...records.record import Record
from .. import page
from ..holding import Holding
from ..pictures import Settings, pictures_of
from ..run import Entry, asked_pictures, folder_name, picture_folder
from ..suite import Suite
from .base import Benchmark, Pictures, Scored
from .values import Result

NOTE = "benchmark.json"
LAYOUT = "layout"


class BenchmarkRun(Record):
    """`benchmark.json`: what was sampled. items: the prompts with all that results need."""

    what: ClassVar[str] = "benchmark run"
    benchmark: str
    prompts: str
    seeds: int
    items: list[dict[str, Any]]

    def scored(self, model: str) -> Scored:
        return Scored(folder_name(model), self.items, self.seeds)


def sample_part(
    entries: Sequence[Entry],
    suite: Suite,
    settings: Settings,
    out: Path,
    held: Holding,
    part: tuple[int, int],
) -> Iterator[Progress]:
    """Sample part (number, count) of the pictures; a later run finds them. Result: how many."""
    count = 0
    total = len(entries) * len(suite.items) * len(settings.seeds)
    for number, entry in enumerate(entries):
        own = entry.settings(settings)
        pipe = load_placed(
            entry.path,
            held.placement,
            device=settings.device,
            dtype=settings.dtype,
            cache=held.cache,
            ahead=[asked_pictures(suite, own)],
        )
        folder = picture_folder(out, number, entry.name)
        for _ in pictures_of(pipe, entry.path, suite.prompts, own, folder, part):
            count += 1
            yield Progress(step=count, total=-(-total // part[1]), message=entry.name)
        del pipe
    yield Progress(step=count, total=count, message="done", result=count)


def lay_out(benchmark: Benchmark, note: BenchmarkRun, comparison: Comparison, out: Path) -> Path:
    """Write every model's pictures as the benchmark's scorer wants them. Returns the folder."""
    layout = out / LAYOUT
    for model in comparison.models:
        files = [out / name for name in comparison.images[model.name]]
        pictures = Pictures(folder_name(model.name), note.items, note.seeds, files)
        benchmark.write(pictures, layout)
    return layout


def read_results(
    benchmark: Benchmark, files: Mapping[str, Sequence[Path]], out: Path
) -> Comparison:
    """Put what the scorer found into the comparison and its page. files: model -> its results.

    Differences are paired with the first model's, where its results are read at the same time.
    Raises BadInput for results that do not fit; then nothing is written.
    """
    note = BenchmarkRun.load(out / NOTE)
    comparison = Comparison.load(out / "comparison.json")
    names = [model.name for model in comparison.models]
    found: dict[str, Mapping[str, Result]] = {}
    for name, paths in files.items():
        if name not in names:
            raise BadInput(f"--results of {name}", ", ".join(names), "name a model of this run")
        found[name] = benchmark.score(paths, note.scored(name))
    models: list[ModelResult] = []
    for model in comparison.models:
        first = models[0] if models else None
        models.append(
            with_results(model, found.get(model.name, {}), first, found.get(names[0], {}))
        )
    comparison = comparison.model_copy(update={"models": models})
    comparison.save(out / "comparison.json")
    write_atomic(out / "index.html", page.render(comparison))
    return comparison


def with_results(
    model: ModelResult,
    found: Mapping[str, Result],
    first: ModelResult | None,
    first_found: Mapping[str, Result],
) -> ModelResult:
    """A model with its new scores. first: the first model with its own, None for that one."""
    scores, retention = dict(model.scores), dict(model.retention)
    difference = dict(model.difference)
    for label, values in found.items():
        score = scores[label] = values.score()
        of_first = score if first is None else first.scores.get(label)
        retention[label] = None
        if of_first is not None and score.higher_is_better and of_first.overall > 0:
            retention[label] = score.overall / of_first.overall
        difference.pop(label, None)
        if first is not None and label in first_found:
            paired = values.difference(first_found[label])
            if paired is not None:
                difference[label] = paired
    figures = {"scores": scores, "retention": retention, "difference": difference}
    return model.model_copy(update=figures)
