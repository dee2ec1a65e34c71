"""From recorded calls to a sensitivity map.

score(edit, block, t) = mean over calibration samples of ||v - v_edit||^2 / ||v||^2 (metric
`prediction`), each norm over one sample's prediction. A share of 1 (0.07 = 7 %). Other metrics: see
table.METRIC_ROWS.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import chain
from typing import Any, cast

from torch import nn

from ..models.sampling import Call, text_hash
from ..records import BadInput, Progress, SensitivityMap, Teacher
from .call_loop import CallLoop
from .edits import Edit, parse_edits
from .results import Measurement
from .scan import Scan
from .scan_settings import Setting
from .stability import stability
from .table import METRICS, Metric, resolved


def profile(
    transformer: nn.Module,
    teacher: Teacher,
    calls: Iterable[Call],
    *,
    edits: Sequence[str | Edit] | None = None,
    metric: str = "prediction",
    measured: Mapping[str, Any] | None = None,
    branches: Sequence[str] = ("cond",),
    setting: Setting | None = None,
) -> Iterator[Progress]:
    """Score every edit of every block over the recorded calls; the last Progress has the
    SensitivityMap.

    edits: None is the metric's own choice. measured: facts about the calls (prompts, seeds,
    guidance, steps) that go into the map, beside the number of samples and how stable the order of
    blocks is. Where `calls` is a generator, its sampling counts in the map's seconds. The Progress
    before the first call carries an estimate in its metrics. Raises BadInput for an unknown edit or
    metric, inputs that do not fit, or a prediction that is not finite (block, edit and timestep
    named).
    """
    row = metric_row(metric, edits)
    chosen = row.edits if edits is None else edits
    scan = Scan(transformer, parse_edits(chosen, teacher))
    yield from _run(scan, teacher, metric, calls, dict(measured or {}), branches, setting)


def naive_profile(
    transformer: nn.Module,
    teacher: Teacher,
    calls: Iterable[Call],
    *,
    edits: Sequence[str | Edit] | None = None,
    measured: Mapping[str, Any] | None = None,
    branches: Sequence[str] = ("cond",),
) -> Iterator[Progress]:
    """The same scores by whole forwards: what `profile` is checked and timed against."""
    chosen = METRICS["prediction"].edits if edits is None else edits
    scan = Scan(transformer, parse_edits(chosen, teacher), cached=False)
    yield from _run(scan, teacher, "prediction", calls, dict(measured or {}), branches, None)


ON_CALLS = ("call", "calls")


def metric_row(name: str, edits: Sequence[str | Edit] | None = None) -> Metric:
    """The row of a metric that recorded calls are enough for.

    Raises BadInput for another name, and for edits where the metric makes none.
    """
    row = METRICS[name]
    if row.needs not in ON_CALLS:
        fit = ", ".join(other for other, metric in METRICS.items() if metric.needs in ON_CALLS)
        raise BadInput(f"metric {name!r} on recorded calls", f"one of {fit}", "choose one")
    check_edits(name, row, edits)
    return row


def check_edits(name: str, metric: Metric, edits: Sequence[str | Edit] | None) -> None:
    """Raises BadInput for edits where the metric makes none."""
    if edits and not metric.edits:
        raise BadInput(f"edits with metric {name}", "no edits: it makes none", "leave --edits out")


def _run(
    scan: Scan,
    teacher: Teacher,
    name: str,
    calls: Iterable[Call],
    measured: dict[str, Any],
    branches: Sequence[str],
    setting: Setting | None,
) -> Iterator[Progress]:
    began = time.perf_counter()
    setting = setting or Setting()
    if isinstance(calls, Sized):
        count = sum(call.branch in branches for call in cast(Iterable[Call], calls))
        setting = replace(setting, total=count)
        if setting.race is not None:  # it decides between batches, by all timesteps of those before
            calls = sorted(cast(Iterable[Call], calls), key=lambda call: call.group)
    chosen = (call for call in calls if call.branch in branches)
    row = METRICS[name]
    if row.needs == "call":
        work = CallLoop(scan, teacher, name, row, setting).run(chosen)
    else:
        work = resolved(row.measure)(scan, chosen, setting)
    for progress in work:
        if not isinstance(progress.result, Measurement):
            yield progress
            continue
        found = progress.result
        record = sensitivity_map(teacher, name, found, measured, setting.weighting)
        record = record.model_copy(update={"seconds": time.perf_counter() - began})
        yield Progress(step=found.steps, total=found.steps, message="done", result=record)


def sensitivity_map(
    teacher: Teacher,
    name: str,
    found: Measurement,
    measured: Mapping[str, Any],
    weighting: str = "normalised",
) -> SensitivityMap:
    """A measurement as a map of this teacher; `measured` gets the number of samples, the prompts
    that were used and how stable the order of blocks is."""
    row = METRICS[name]
    facts = {**measured, **found.facts, **used_prompts(found, measured)}
    if found.calls and "race" not in facts:  # blocks of a race differ in their prompts
        stable = stability(found.calls, weighting)
        facts["stability"] = {edit: one.model_dump() for edit, one in stable.items()}
    return SensitivityMap(
        teacher=teacher.name,
        fingerprint=teacher.fingerprint,
        family=teacher.family,
        metric=name,
        unit=row.unit,
        direction=row.direction,
        rows=found.rows,
        measured=facts,
        block_evaluations=found.evaluations,
        naive_block_evaluations=found.naive_evaluations,
    )


def used_prompts(found: Measurement, measured: Mapping[str, Any]) -> dict[str, Any]:
    """The prompts that the scores are of, where a scan ended before it needed all of them."""
    prompts = measured.get("prompts")
    used = set(chain.from_iterable(call.prompts for call in found.calls))
    if not isinstance(prompts, list) or not used or used >= set(prompts):
        return {}
    if "held_out" in found.facts:
        return {}  # the others were trained on
    kept = [prompt for prompt in prompts if prompt in used]
    return {"prompts": kept, "prompts_hash": text_hash(kept)}
