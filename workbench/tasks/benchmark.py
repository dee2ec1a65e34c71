"""`workbench benchmark`: sample a benchmark's prompts for its own scorer, read its results back."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..comparison.benchmarks.base import Benchmark
from ..comparison.benchmarks.run import (
    LAYOUT,
    NOTE,
    BenchmarkRun,
    lay_out,
    read_results,
    sample_part,
)
from ..comparison.benchmarks.table import BENCHMARKS
from ..comparison.run import compare as run_comparison
from ..comparison.suite import Suite
from ..records import BadInput, Progress
from ..specs import BenchmarkSpec, CompareSpec
from ..specs.compare import split_name
from .compare import Request, facts, holding_of, models_request
from .context import Context, until
from .prompts import scene_items

PER_CATEGORY = 40  # prompts of the scenes


def benchmark(spec: BenchmarkSpec, context: Context) -> Iterator[Progress]:
    """Sample, lay out, or read results. Result: `facts` of the comparison, and where the layout is."""
    row = BENCHMARKS[spec.name]
    if spec.results:
        yield results_of(spec, row, context)
        return
    order = Order.of(spec, context)
    request = order.request
    print(f"sampling: {request.sampling.in_words}", file=sys.stderr, flush=True)
    print(f"{row.title}: {row.licence}; {row.source}", file=sys.stderr, flush=True)
    held = holding_of(request, spec.placement, context)
    arguments = (request.entries, request.suite)
    if order.part is not None:
        part = sample_part(*arguments, request.settings, request.out, held, order.part)
        for progress in until(context.stop, part):
            result = None if progress.result is None else order.part_facts(progress.result)
            yield progress.model_copy(update={"result": result})
        return
    run = run_comparison(*arguments, {}, request.settings, request.out, held)
    for progress in until(context.stop, run):
        if progress.result is None:
            yield progress
            continue
        note = order.note()
        note.save(request.out / NOTE)
        lay_out(row, note, progress.result, request.out)
        context.store.add("comparison", request.out)
        result = {**facts(progress.result, request.out), **layout_facts(spec, row, request.out)}
        yield progress.model_copy(update={"result": result})


@dataclass(frozen=True)
class Order:
    """A run whose models, prompts and output are known to be good. part: (number, count)."""

    row: Benchmark
    spec: BenchmarkSpec
    request: Request
    part: tuple[int, int] | None

    @classmethod
    def of(cls, spec: BenchmarkSpec, context: Context) -> Order:
        """Raises BadInput for everything that a person can get wrong; samples nothing."""
        row = BENCHMARKS[spec.name]
        part = part_of(spec.shard)
        if part is not None and not spec.out:
            raise BadInput("--shard without -o", "an output that all parts share", "add -o PATH")
        seeds = seeds_of(spec, row)
        suite = suite_of(spec, row)
        as_compare = CompareSpec(
            models=spec.models,
            names=spec.names,
            out=spec.out,
            seeds=seeds,
            sampling_steps=spec.sampling_steps,
            guidance=spec.guidance,
            size=spec.size,
            negative=spec.negative,
            scorers=[],
            dtype=spec.dtype,
            placement=spec.placement,
        )
        if not spec.models:
            raise BadInput("benchmark without a model", "a teacher or a student", "name one")
        request = models_request(as_compare, context, suite)
        order = cls(row, spec, replace(request, scorers={}), part)
        order.check_same_prompts()
        return order

    def check_same_prompts(self) -> None:
        """Refuse a finished run of other prompts: its pictures would stay in the layout, and be
        scored.
        """
        file = self.request.out / NOTE
        if not file.is_file():
            return
        before, now = BenchmarkRun.load(file), self.note()
        items = now.model_dump(mode="json")["items"]
        if (before.benchmark, before.seeds, before.items) != (now.benchmark, now.seeds, items):
            raise BadInput(
                f"-o {self.request.out} is a run of {before.benchmark} with {len(before.items)} "
                f"prompts, pictures of each: {before.seeds}",
                "the same prompts again, or a new folder",
                "choose another -o",
            )

    def note(self) -> BenchmarkRun:
        return BenchmarkRun(
            benchmark=self.spec.name,
            prompts=self.spec.prompts or "",
            seeds=len(self.request.settings.seeds),
            items=[dict(item) for item in self.request.suite.items],
        )

    def part_facts(self, count: int) -> dict[str, Any]:
        return {
            "benchmark": self.spec.name,
            "out": str(self.request.out),
            "shard": self.spec.shard,
            "pictures": count,
        }


def check_benchmark(spec: BenchmarkSpec, context: Context) -> None:
    """The benchmark, its prompts, the models, the part, and the output or the results."""
    row = BENCHMARKS[spec.name]
    if spec.results:
        run_folder(spec)
        result_files(spec)
        return
    from .checks import is_here, with_weights

    sources = [split_name(model)[1] for model in spec.models]
    for source in sources:
        with_weights(source, context)
    if all(is_here(source, context) for source in sources):
        Order.of(spec, context)
    else:
        suite_of(spec, row)


# --- prompts, parts -------------------------------------------------------------------------------


def suite_of(spec: BenchmarkSpec, row: Benchmark) -> Suite:
    """The benchmark's prompts. Raises BadInput where no file is named."""
    if not row.prompts:
        return Suite(spec.name, scene_items(PER_CATEGORY, "eval"))
    if not spec.prompts:
        raise BadInput(
            f"benchmark {spec.name} without --prompts",
            f"{row.prompts} of {row.source} ({row.licence})",
            "get it and add --prompts PATH",
        )
    return Suite(spec.name, row.read(Path(spec.prompts)))


def seeds_of(spec: BenchmarkSpec, row: Benchmark) -> int:
    """Pictures per prompt. Raises BadInput for a number that the scorer cannot take."""
    if spec.seeds is not None and row.fixed and spec.seeds != row.seeds:
        raise BadInput(
            f"--seeds {spec.seeds} for {spec.name}",
            f"{row.seeds}, as its scorer takes",
            "leave --seeds out",
        )
    return spec.seeds or row.seeds


def part_of(shard: str | None) -> tuple[int, int] | None:
    """ "2/4" -> (1, 4). Raises BadInput for anything else."""
    if shard is None:
        return None
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise BadInput(f"--shard {shard}", "I/N with I from 1 to N, such as 2/4", "correct it")
    return int(match[1]) - 1, int(match[2])


def layout_facts(spec: BenchmarkSpec, row: Benchmark, out: Path) -> dict[str, Any]:
    return {
        "benchmark": spec.name,
        "licence": row.licence,
        "layout": str(out / LAYOUT),
        "scorer": row.scorer,
    }


# --- results --------------------------------------------------------------------------------------


def results_of(spec: BenchmarkSpec, row: Benchmark, context: Context) -> Progress:
    """Read the scorer's results into the comparison of a run."""
    out = run_folder(spec)
    comparison = read_results(row, result_files(spec), out)
    context.store.add("comparison", out)
    result = {**facts(comparison, out), **layout_facts(spec, row, out)}
    return Progress(step=1, total=1, message="done", result=result)


def run_folder(spec: BenchmarkSpec) -> Path:
    """The folder of the run that results are of. Raises BadInput where it is none of this
    benchmark's.
    """
    if spec.models or not spec.out:
        found = "--results with models" if spec.models else "--results without -o"
        raise BadInput(found, "-o, the folder of a finished run, and no models", "change that")
    out = Path(spec.out).absolute()
    if not (out / NOTE).is_file():
        raise BadInput(f"-o {out} has no {NOTE}", "the folder of a finished run", "sample it first")
    note = BenchmarkRun.load(out / NOTE)
    if note.benchmark != spec.name:
        expected = f"a run of {spec.name}"
        raise BadInput(f"-o {out} is a run of {note.benchmark}", expected, "check the name")
    return out


def result_files(spec: BenchmarkSpec) -> dict[str, list[Path]]:
    """Model -> its results. Raises BadInput for a text that is not MODEL=PATH, and no such path."""
    files: dict[str, list[Path]] = {}
    for text in spec.results:
        name, equals, path = text.partition("=")
        place = Path(path).expanduser()
        if not equals or not name:
            raise BadInput(f"--results {text}", "MODEL=PATH", "name the model that it is of")
        if not place.exists():
            raise BadInput(f"--results {text}: {place} does not exist", "a path", "check it")
        files.setdefault(name, []).append(place.absolute())
    return files
