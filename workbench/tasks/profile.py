"""The kind that measures: profile.

A spec is the verb's flags as plain data. Results are the JSON of the command line (DESIGN section
9).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import models, plans, sensitivity
from ..records import BadInput, Progress, SensitivityMap, Teacher
from .calibration import Pictures, Source, from_file, from_prompts, pictures
from .context import Context, until
from .info import describe
from .profile_shards import launched, share_of
from .resolve import locate

FACTS = {
    "rows",
    "metric",
    "unit",
    "direction",
    "seconds",
    "block_evaluations",
    "naive_block_evaluations",
}


def profile(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: teacher, edits, metric, scorer, timesteps, prompts | inputs, seeds, steps, guidance,
    size, batch, dtype, timestep_weight, until_stable, longest, train_steps, processes, resume,
    out."""
    metric = sensitivity.metric_named(spec.get("metric") or "prediction")
    path, name = locate(spec["teacher"], context.store)
    teacher = describe(spec["teacher"], context.store)
    edits = edits_of(spec, teacher)
    check(spec, metric.needs)
    out = out_of(spec, name, teacher, context)
    partial = out.with_name(f".{out.name}.partial")
    if not context.resume and "shard" not in spec:
        for file in sensitivity.siblings(partial):
            file.unlink()
    if int(spec.get("processes") or 1) > 1 and "shard" not in spec:
        yield from launched({**spec, "out": str(out)}, context, partial)
        return
    yield Progress(step=0, total=1, message=f"loading {name}")
    if metric.needs == "pictures":
        yield from finished(
            _pictures(pictures(path, name, spec, context), teacher, edits, partial),
            out,
            partial,
            context,
        )
        return
    source = (
        from_file(path, spec, context)
        if spec.get("inputs")
        else from_prompts(path, name, spec, context)
    )
    work = _calls(source, teacher, edits, spec, partial)
    yield from finished(work, out, partial, context, source, first=share_of(spec).number == 0)


def edits_of(spec: dict[str, Any], teacher: Teacher) -> list[str]:
    """The edits to make, each known to the family; metrics that choose their own take none."""
    row = sensitivity.METRICS[spec.get("metric") or "prediction"]
    if row.edits and spec.get("edits"):
        raise BadInput(
            f"--edits with metric {spec['metric']}", "no edits: it makes none", "leave --edits out"
        )
    usual = ["drop", "merge"] if row.needs == "calls" and not row.edits else ["drop"]
    edits = list(spec.get("edits") or usual)
    for edit in edits:
        sensitivity.parse_edit(edit, teacher)
    return edits


def check(spec: dict[str, Any], needs: str) -> None:
    """Flags that do not go together."""
    split = int(spec.get("processes") or 1) > 1
    if spec.get("until_stable") and (split or needs != "calls" or spec.get("inputs")):
        other = (
            "--processes"
            if split
            else "--inputs"
            if spec.get("inputs")
            else f"metric {spec['metric']}"
        )
        raise BadInput(
            f"--until-stable with {other}",
            "one process, prompts, and metric prediction or influence",
            "leave one of them out",
        )
    if split and needs != "calls":
        raise BadInput(
            f"--processes with metric {spec['metric']}",
            "metric prediction or influence",
            "leave --processes out",
        )
    weighting = spec.get("timestep_weight") or "normalised"
    plans.check_weighting(weighting)
    if needs == "pictures" and spec.get("inputs"):
        raise BadInput(
            "--inputs with metric image", "prompts: pictures must be sampled", "leave --inputs out"
        )
    for name in ("longest", "train_steps"):
        if spec.get(name) is not None and needs != "training":
            raise BadInput(
                f"--{name.replace('_', '-')} without metric recovery",
                "--metric recovery",
                "leave it out",
            )
    if spec.get("scorer") and needs != "pictures":
        raise BadInput("--scorer without metric image", "--metric image", "leave --scorer out")


def out_of(spec: dict[str, Any], name: str, teacher: Teacher, context: Context) -> Path:
    """Where the map goes: -o, else one file per teacher and metric in the workspace."""
    metric = spec.get("metric") or "prediction"
    mark = teacher.fingerprint + ("" if metric == "prediction" else f"-{metric}")
    out = Path(
        spec.get("out")
        or context.store.workspace / "sensitivity" / f"{Path(name).name}-{mark}.json"
    ).absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _calls(
    source: Source, teacher: Teacher, edits: list[str], spec: dict[str, Any], partial: Path
) -> Iterator[Progress]:
    share = share_of(spec)
    usual = sensitivity.Training()
    training = sensitivity.Training(
        int(spec.get("train_steps") or usual.steps), int(spec.get("longest") or usual.longest)
    )
    return sensitivity.profile(
        source.transformer,
        teacher,
        source.calls,
        edits=edits,
        metric=spec.get("metric") or "prediction",
        partial=share.file(partial),
        measured=source.measured,
        total=source.total,
        sampling=source.sampling,
        prompts=source.prompts,
        weighting=spec.get("timestep_weight") or "normalised",
        until_stable=bool(spec.get("until_stable")),
        gather=share.gather,
        training=training,
    )


def _pictures(
    made: Pictures, teacher: Teacher, edits: list[str], partial: Path
) -> Iterator[Progress]:
    return sensitivity.profile_pictures(
        made.pipe,
        teacher,
        made.prompts,
        score=made.score,
        scorer=made.scorer,
        edits=edits,
        partial=partial,
        measured=made.measured,
        different=made.different,
        **made.how,
    )


def finished(
    work: Iterator[Progress],
    out: Path,
    partial: Path,
    context: Context,
    source: Source | None = None,
    first: bool = True,
) -> Iterator[Progress]:
    """Print the estimate, pass progress on; at the end save the map, index it and say what it is.
    Of several processes the first does.
    """
    estimate: dict[str, Any] | None = None
    for progress in until(context.stop, work):
        found = {
            key.removeprefix("estimated_"): value
            for key, value in progress.metrics.items()
            if key.startswith("estimated_")
        }
        if found:
            estimate = found
            if first:
                print(progress.message, file=sys.stderr, flush=True)
        if progress.result is None or not first:
            yield (
                progress
                if progress.result is None
                else progress.model_copy(update={"result": {"map": str(out)}})
            )
            continue
        record = used(progress.result, source)
        record.save(out)
        for file in sensitivity.siblings(partial):
            file.unlink(missing_ok=True)
        context.store.add("map", out)
        yield Progress(
            step=progress.step,
            total=progress.total,
            result={"map": str(out), **facts(record), "estimate": estimate},
        )


def used(record: SensitivityMap, source: Source | None) -> SensitivityMap:
    """The record with the prompts that were used: a scan that ended early did not need them all."""
    count = record.measured.get("samples", 0)
    if source is None or "prompts" not in record.measured or count >= source.pairs:
        return record
    left = {"prompts": record.measured["prompts"][:count]}
    left["prompts_hash"] = models.text_hash(left["prompts"])
    return record.model_copy(update={"measured": {**record.measured, **left}})


def facts(record: SensitivityMap) -> dict[str, Any]:
    """A map as the command line prints it."""
    return {
        **record.model_dump(mode="json", include=FACTS),
        "stability": record.measured.get("stability"),
        "trust": record.trust,
    }
