"""From recorded calls to a map: the loop over calls, its progress, its standard errors.

score(edit, block, t) = mean over calibration samples of ||v - v_edit||^2 / ||v||^2 (metric
`prediction`), each norm over one sample's prediction. A share of 1 (0.07 = 7 %). Other metrics: see
METRICS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..models import Call, placed
from ..records import BadInput, Progress, Row, SensitivityMap, Teacher
from .cka import span_rows
from .estimate import estimate, in_words
from .metrics import METRICS, Metric
from .naming import parse_edit
from .partial import Partial, identity
from .recovery import Recovery, Training
from .scan import Scan, Scores
from .stability import Result, stability

Gather = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def profile(
    transformer: nn.Module,
    teacher: Teacher,
    calls: Iterable[Call],
    *,
    edits: Sequence[str] = ("drop", "merge"),
    metric: str = "prediction",
    partial: Path | None = None,
    measured: Mapping[str, Any] | None = None,
    branches: Sequence[str] = ("cond",),
    total: int | None = None,
    sampling: int = 0,
    prompts: int | None = None,
    weighting: str = "normalised",
    until_stable: bool = False,
    gather: Gather | None = None,
    training: Training | None = None,
) -> Iterator[Progress]:
    """Score every edit of every block over the recorded calls; the last Progress carries the
    SensitivityMap.

    `partial` keeps the scores of finished calls; a scan with the same weights, edits and calls
    resumes from it. `total` is the number of calls where `calls` is a generator (whose sampling
    then counts in the map's seconds), `sampling` how many forwards that sampling takes. `measured`
    (prompts, seeds, guidance, steps) goes into the map, and the number of samples and how stable
    the order of blocks is with it (`prompts` different prompts, see stability). `until_stable` ends
    after the first batch of prompts with which every edit's order is. `gather` joins what several
    processes measured, each on its share of the calls: given this process's finished calls it
    returns everyone's, and the map is made of all. `training` is for metric recovery. The Progress
    before the first call carries an estimate in its metrics. Raises BadInput for an unknown edit or
    metric, inputs that do not fit, or a prediction that is not finite (block, edit and timestep
    named).
    """
    row = metric_named(metric, "pictures")
    loop = _Loop(
        Scan(transformer, [parse_edit(name, teacher) for name in dict.fromkeys(edits)]),
        teacher,
        metric,
        row,
        list(edits),
        dict(measured or {}),
        prompts,
        weighting,
    )
    chosen = (call for call in calls if call.branch in branches)
    if isinstance(calls, Sized):
        total = sum(call.branch in branches for call in cast(Iterable[Call], calls))
    if row.needs == "states":
        yield from loop.states(chosen, total or 0)
        return
    if row.needs == "training":
        yield from loop.recovery(chosen, total or 0, sampling, training or Training())
        return
    yield from loop.calls(
        chosen,
        total or 0,
        Partial(partial, teacher.fingerprint, edits, metric),
        sampling,
        until_stable,
        gather,
    )


def naive_profile(
    transformer: nn.Module,
    teacher: Teacher,
    calls: Iterable[Call],
    *,
    edits: Sequence[str] = ("drop", "merge"),
    measured: Mapping[str, Any] | None = None,
    branches: Sequence[str] = ("cond",),
) -> Iterator[Progress]:
    """The same scores by one whole forward per edit: what `profile` is checked and timed against."""
    scan = Scan(
        transformer, [parse_edit(name, teacher) for name in dict.fromkeys(edits)], cached=False
    )
    loop = _Loop(
        scan,
        teacher,
        "prediction",
        METRICS["prediction"],
        list(edits),
        dict(measured or {}),
        None,
        "normalised",
    )
    yield from loop.calls(
        (call for call in calls if call.branch in branches), 0, Partial(None, "", edits), 0, False
    )


def metric_named(name: str, *but: str) -> Metric:
    """A row of METRICS. Raises BadInput for another name, and for metrics that need one of `but`."""
    fit = [key for key, row in METRICS.items() if row.needs not in but]
    if name not in fit:
        raise BadInput(f"metric {name!r}", "one of " + ", ".join(fit), "choose one")
    return METRICS[name]


class _Loop:
    """One scan over many calls."""

    def __init__(
        self,
        scan: Scan,
        teacher: Teacher,
        name: str,
        metric: Metric,
        edits: list[str],
        measured: dict[str, Any],
        prompts: int | None,
        weighting: str,
    ) -> None:
        self.scan, self.teacher, self.name, self.metric, self.edits = (
            scan,
            teacher,
            name,
            metric,
            edits,
        )
        self.measured, self.prompts, self.weighting = measured, prompts, weighting
        self.began = time.perf_counter()
        self.finished: list[dict[str, Any]] = []
        self.results: list[Result] = []
        self.evaluations = self.naive = 0

    def calls(
        self,
        calls: Iterator[Call],
        total: int,
        memory: Partial,
        sampling: int,
        until_stable: bool,
        gather: Gather | None = None,
    ) -> Iterator[Progress]:
        estimated = not self.scan.cached
        for call in calls:
            if (
                until_stable
                and self.results
                and call.group != self.results[-1][0]
                and self.stable()
            ):
                break
            done = memory.get(identity(call)) if memory.path else None
            if done is None:
                if not estimated:
                    yield self.estimated(call, max(total - len(self.results), 1), sampling)
                    estimated = True
                done = memory.put(identity(call) if memory.path else "", self.scored(call))
            self.add({"group": call.group, "timestep": call.timestep, **done})
            count = len(self.results)
            yield Progress(
                step=count,
                total=max(total, count),
                message=f"prompts {call.group}, timestep {call.timestep:.0f}",
                metrics={
                    "timestep": call.timestep,
                    "group": call.group,
                    "mean_score": _mean(done["scores"]),
                },
            )
        if gather is not None:
            self.joined(gather(self.finished))
        if self.results and not any(scores for _, _, scores in self.results):
            raise BadInput(
                f"edits {', '.join(self.edits)} apply to no block of {self.teacher.name}",
                "an edit of this family",
                "correct --edits",
            )
        if not self.results:
            raise BadInput(
                "no calls to measure on", "at least one prompt and timestep", "give prompts"
            )
        self.measured["stability"] = self.stability()
        yield self.done(mean_rows(self.results), len(self.results))

    def add(self, finished: dict[str, Any]) -> None:
        self.finished.append(finished)
        self.results.append((finished["group"], finished["timestep"], finished["scores"]))
        self.evaluations, self.naive = (
            self.evaluations + finished["evaluations"],
            self.naive + finished["naive"],
        )

    def joined(self, everyone: list[dict[str, Any]]) -> None:
        """Go on with what all processes measured, in the order in which one would have."""
        self.finished, self.results, self.evaluations, self.naive = [], [], 0, 0
        for finished in sorted(everyone, key=lambda call: (call["group"], -call["timestep"])):
            self.add(finished)

    def states(self, calls: Iterator[Call], total: int) -> Iterator[Progress]:
        """Metric cka: states of all calls first, then probes and spans."""
        sizes: dict[int, int] = {}

        def counted() -> Iterator[Call]:
            for call in calls:
                sizes[call.group] = call.samples
                self.evaluations += len(self.scan.blocks)
                yield call

        for progress in span_rows(self.scan, counted(), total):
            if progress.result is None:
                yield progress
            elif not sizes:
                raise BadInput(
                    "no calls to measure on", "at least one prompt and timestep", "give prompts"
                )
            else:
                self.naive, self.measured["samples"] = self.evaluations, sum(sizes.values())
                yield self.done(progress.result, progress.step)

    def recovery(
        self, calls: Iterator[Call], total: int, sampling: int, training: Training
    ) -> Iterator[Progress]:
        """Metric recovery: all calls first, then candidates are trained and scored."""
        held: list[Call] = []
        for call in calls:
            held.append(
                replace(call, kwargs=placed(call.kwargs, torch.device("cpu"), self.scan.dtype))
            )
            yield Progress(
                step=len(held),
                total=max(total, len(held)),
                message=f"recorded timestep {call.timestep:.0f}",
            )
        if not held:
            raise BadInput(
                "no calls to measure on", "at least one prompt and timestep", "give prompts"
            )
        work = Recovery(self.scan, held, training)
        found = work.estimate(sampling)
        yield Progress(
            step=0,
            total=work.total,
            message=in_words(found),
            metrics={f"estimated_{name}": found[name] for name in found},
        )
        self.scan.evaluations = 0
        yield from work.work()
        self.results, self.evaluations, self.naive = (
            work.results,
            self.scan.evaluations,
            self.scan.evaluations,
        )
        self.measured |= {**work.measured(), "stability": self.stability()}
        yield self.done(mean_rows(self.results), work.step)

    def scored(self, call: Call) -> dict[str, Any]:
        assert self.metric.call is not None
        scores, count = self.metric.call(self.scan, call)
        naive = self.scan.naive_evaluations if self.metric.call is Scan.call else count
        return {"scores": scores, "evaluations": count, "naive": naive}

    def estimated(self, call: Call, calls: int, sampling: int) -> Progress:
        alone = None if self.metric.call is Scan.call else len(self.scan.blocks)
        found = estimate(self.scan, call, calls, evaluations=alone, sampling=sampling)
        return Progress(
            step=len(self.results),
            total=calls + len(self.results),
            message=in_words(found),
            metrics={f"estimated_{key}": value for key, value in found.items()},
        )

    def stability(self) -> dict[str, dict[str, Any]]:
        return stability(self.results, prompts=self.prompts, weighting=self.weighting)

    def stable(self) -> bool:
        found = self.stability()
        return bool(found) and all(edit["stable"] for edit in found.values())

    def done(self, rows: list[Row], step: int) -> Progress:
        sizes = {group: len(next(iter(scores.values()), ())) for group, _, scores in self.results}
        self.measured.setdefault("samples", sum(sizes.values()))
        record = SensitivityMap(
            teacher=self.teacher.name,
            fingerprint=self.teacher.fingerprint,
            family=self.teacher.family,
            metric=self.name,
            unit=self.metric.unit,
            direction=self.metric.direction,
            rows=rows,
            measured=self.measured,
            seconds=time.perf_counter() - self.began,
            block_evaluations=self.evaluations,
            naive_block_evaluations=self.naive,
        )
        return Progress(step=step, total=step, message="done", result=record)


def _mean(scores: Scores) -> float:
    values = [score for of_edit in scores.values() for score in of_edit]
    return sum(values) / max(len(values), 1)


def mean_rows(results: Sequence[Result]) -> list[Row]:
    """Mean and standard error over all samples of a timestep, noise first. Keys: "stack block
    edit", or "stack first-last edit".
    """
    pooled: dict[tuple[float | None, str], list[float]] = {}
    for _, timestep, scores in results:
        for key, values in scores.items():
            pooled.setdefault((None if timestep is None else round(timestep, 3), key), []).extend(
                values
            )
    rows = []
    for (timestep, key), values in sorted(pooled.items(), key=lambda item: -(item[0][0] or 0.0)):
        stack, span, edit = key.split(" ")
        block, _, last = span.partition("-")
        sample = torch.tensor(values, dtype=torch.float64)
        error = float(sample.std() / len(values) ** 0.5) if len(values) > 1 else None
        rows.append(
            Row(
                stack=stack,
                block=int(block),
                last=int(last) if last else None,
                edit=edit,
                timestep=timestep,
                score=float(sample.mean()),
                stderr=error,
            )
        )
    return rows
