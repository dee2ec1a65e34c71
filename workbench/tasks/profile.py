"""`workbench profile`: measure a sensitivity map."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import plans
from ..models.placement import Choice, check_weights, choose
from ..records import BadInput, Progress, SensitivityMap, Teacher
from ..sensitivity.edits import Edit, parse_edits
from ..sensitivity.partial import siblings
from ..sensitivity.pictures import profile_pictures
from ..sensitivity.profiling import check_edits
from ..sensitivity.profiling import profile as profile_calls
from ..sensitivity.race import check_lowest
from ..sensitivity.scan_settings import Setting
from ..sensitivity.table import METRICS, Metric, resolved
from ..specs import ProfileSpec
from ..specs.placements import AUTO, PLACEMENTS
from ..specs.teacher_weights import AS_LOADED
from .calibration import Pictures, Source, from_file, from_prompts, pictures, sampling_of
from .context import Context, until
from .profile_shards import WHOLE, Share, in_processes
from .prompts import check_inputs
from .recorded_conditioning import (
    check_modulation,
    recording,
    use_recorded,
    vectors_are_recorded,
    with_known_vectors,
)
from .resolve import Model, resolve

FACTS = {
    "rows",
    "metric",
    "unit",
    "direction",
    "seconds",
    "block_evaluations",
    "naive_block_evaluations",
}
ESTIMATED = "estimated_"  # prefix of an estimate's metrics in a Progress


def profile(spec: ProfileSpec, context: Context, share: Share = WHOLE) -> Iterator[Progress]:
    """Measure and save a map; the last Progress has the JSON of the command line.

    share: this process's part of the calls, where the scan is split. Raises BadInput for options
    that do not go together, before anything is loaded.
    """
    metric = METRICS[spec.metric]
    model = resolve(spec.teacher, context.store)
    teacher = model.description
    check(spec, metric)
    edits = parse_edits(spec.edits or metric.edits, teacher)
    spec = with_known_vectors(spec, teacher, edits, context.store)
    check_modulation(spec, metric, teacher, edits)
    check_race(spec, metric, teacher, edits)
    out = output_file(spec, model, context)
    partial = partial_file(out, spec)
    if not context.resume and share.alone:
        remove(partial)
    if spec.processes > 1 and share.alone:
        split = spec.model_copy(update={"processes": 1, "out": str(out)})
        yield from in_processes(split, spec.processes, context, partial)
        return
    yield Progress(step=0, total=1, message=f"loading {model.title}")
    work: Iterator[Progress]
    held = placement_of(model, spec, metric, context, share)
    if metric.needs == "weights":
        work = resolved(metric.measure)(
            model.folder, teacher, edits, timesteps=spec.timesteps, vectors=spec.conditioning
        )
    elif metric.needs == "pictures":
        source_of_pictures = pictures(model, spec, context, held)
        use_recorded(source_of_pictures.pipe.transformer, spec)
        work = picture_scan(source_of_pictures, teacher, edits, spec, partial)
    else:
        if spec.inputs:
            source = from_file(model.folder, spec, context, held, share)
        else:
            source = from_prompts(model, spec, context, held, share)
        use_recorded(source.transformer, spec)
        work = scan(source, teacher, edits, spec, share.file(partial), share)
        if share.alone and vectors_are_recorded(teacher):
            work = recording(work, source.transformer, out)
    if share.first and metric.needs != "weights" and not spec.inputs:
        print(f"sampling: {sampling_of(model, spec).in_words}", file=sys.stderr, flush=True)
    yield from Saving(out, partial, context, share).run(work)


def placement_of(
    model: Model, spec: ProfileSpec, metric: Metric, context: Context, share: Share
) -> Choice:
    """How the teacher is held; said before it is loaded."""
    held = choose(
        spec.placement,
        [model.folder],
        device=context.device,
        dtype=spec.dtype,
        processes=share.count,
        streams=metric.streams,
        weights=spec.teacher_weights,
    )
    if share.first and metric.needs != "weights":
        print(f"placement: {held.in_words}", file=sys.stderr, flush=True)
    return held


def check(spec: ProfileSpec, metric: Metric) -> None:
    """Raises BadInput for options that do not go together."""
    check_edits(spec.metric, metric, spec.edits)
    check_streams(spec, metric)
    check_packed(spec, metric)
    plans.check_weighting(spec.timestep_weight or "normalised")
    check_inputs(spec.inputs, spec.prompts)
    split = spec.processes > 1
    if metric.needs != "call" and (split or spec.until_stable):
        flag = "--processes" if split else "--until-stable"
        fit = [name for name, row in METRICS.items() if row.needs == "call"]
        raise BadInput(
            f"{flag} with metric {spec.metric}", "one of " + ", ".join(fit), f"leave {flag} out"
        )
    if spec.until_stable and (split or spec.inputs):
        other = "--processes" if split else "--inputs"
        raise BadInput(
            f"--until-stable with {other}", "one process and prompts", "leave one of them out"
        )
    if metric.needs == "pictures" and spec.inputs:
        raise BadInput(
            f"--inputs with metric {spec.metric}",
            "prompts: pictures must be sampled",
            "leave --inputs out",
        )
    if metric.needs == "weights" and (spec.inputs or spec.prompts):
        flag = "--inputs" if spec.inputs else "--prompts"
        raise BadInput(
            f"{flag} with metric {spec.metric}",
            "neither prompts nor inputs: it measures weights",
            f"leave {flag} out, or choose another --metric",
        )
    check_own_options(spec)


def check_streams(spec: ProfileSpec, metric: Metric) -> None:
    """Raises BadInput for streamed blocks and a metric that needs gradients of them."""
    if metric.streams or spec.placement == AUTO or not PLACEMENTS[spec.placement].streamed:
        return
    fit = ", ".join(name for name, row in METRICS.items() if row.streams)
    raise BadInput(
        f"--placement {spec.placement} with metric {spec.metric}, which takes gradients",
        f"one of {fit}",
        "choose another --placement or --metric",
    )


def check_packed(spec: ProfileSpec, metric: Metric) -> None:
    """Raises BadInput for packed weights that are streamed too, with a metric that reads weights
    from files, and with one that needs gradients of the teacher's blocks.
    """
    if spec.teacher_weights == AS_LOADED:
        return
    check_weights(spec.placement, spec.teacher_weights)
    reasons = {"which reads the weights' files": metric.needs == "weights"}
    reasons["which takes gradients"] = not metric.streams
    for reason, applies in reasons.items():
        if applies:
            raise BadInput(
                f"--teacher-weights {spec.teacher_weights} with metric {spec.metric}, {reason}",
                "weights as they are loaded",
                "leave --teacher-weights out, or choose another --metric",
            )


def check_race(spec: ProfileSpec, metric: Metric, teacher: Teacher, edits: list[Edit]) -> None:
    """Raises BadInput for --race with a metric that measures all blocks at once, with several
    processes, or with no fewer blocks than there are."""
    if spec.race is None:
        return
    if metric.needs != "call" or not metric.edits:
        fit = [name for name, row in METRICS.items() if row.needs == "call" and row.edits]
        raise BadInput(
            f"--race with metric {spec.metric}", "one of " + ", ".join(fit), "leave --race out"
        )
    if spec.processes > 1:
        raise BadInput("--race with --processes", "one process", "leave one of them out")
    blocks = sum(stack.depth for stack in teacher.stacks)
    for edit in edits:
        check_lowest(spec.race, blocks, edit.name)


def check_own_options(spec: ProfileSpec) -> None:
    """Raises BadInput for an option that belongs to another metric."""
    for name, metric in METRICS.items():
        for option in metric.spec_fields:
            if name != spec.metric and getattr(spec, option, None) is not None:
                flag = "--" + option.replace("_", "-")
                raise BadInput(
                    f"{flag} with metric {spec.metric}", f"--metric {name}", f"leave {flag} out"
                )


def output_file(spec: ProfileSpec, model: Model, context: Context) -> Path:
    """Where the map goes: --out, else one file per teacher and metric in the workspace; a second one
    only while another job writes that.
    """
    if spec.out:
        out = Path(spec.out)
    else:
        suffix = "" if spec.metric == "prediction" else f"-{spec.metric}"
        suffix += "" if spec.teacher_weights == AS_LOADED else f"-{spec.teacher_weights}"
        name = f"{model.title}-{model.fingerprint}{suffix}"
        out = context.store.out("map", name, ".json", replace=True)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def partial_file(out: Path, spec: ProfileSpec) -> Path:
    """Where finished calls are kept; scores of packed weights by themselves."""
    weights = "" if spec.teacher_weights == AS_LOADED else f".{spec.teacher_weights}"
    return out.with_name(f".{out.name}{weights}.partial")


def scan(
    source: Source,
    teacher: Teacher,
    edits: list[Edit],
    spec: ProfileSpec,
    partial: Path,
    share: Share,
) -> Iterator[Progress]:
    """The scan over recorded calls."""
    read_options = METRICS[spec.metric].options
    setting = Setting(
        total=source.total,
        sampling=source.sampling,
        partial=partial,
        weighting=spec.timestep_weight or "normalised",
        until_stable=spec.until_stable,
        race=spec.race,
        gather=share.gather,
        options=resolved(read_options)(spec) if read_options else None,
    )
    return profile_calls(
        source.transformer,
        teacher,
        source.calls,
        edits=edits,
        metric=spec.metric,
        measured=source.measured,
        setting=setting,
    )


def picture_scan(
    source: Pictures, teacher: Teacher, edits: list[Edit], spec: ProfileSpec, partial: Path
) -> Iterator[Progress]:
    """The scan over finished pictures."""
    work: Iterator[Progress] = profile_pictures(
        source.pipe,
        teacher,
        source.prompts,
        generation=source.generation,
        score=source.score,
        scorer=source.scorer,
        edits=edits,
        metric=spec.metric,
        partial=partial,
        measured=source.measured,
    )
    return work


@dataclass
class Saving:
    """Passes progress on, prints the estimate, and saves and indexes the map at the end. Of several
    processes the first one does.
    """

    out: Path
    partial: Path
    context: Context
    share: Share
    estimate: dict[str, Any] | None = None

    def run(self, work: Iterator[Progress]) -> Iterator[Progress]:
        for progress in until(self.context.stop, work):
            self._look_for_estimate(progress)
            if progress.result is None:
                yield progress
            elif self.share.first:
                yield progress.model_copy(update={"result": self._save(progress.result)})
            else:
                yield progress.model_copy(update={"result": {"map": str(self.out)}})

    def _look_for_estimate(self, progress: Progress) -> None:
        found = {
            key.removeprefix(ESTIMATED): value
            for key, value in progress.metrics.items()
            if key.startswith(ESTIMATED)
        }
        if found:
            self.estimate = found
            if self.share.first:
                print(progress.message, file=sys.stderr, flush=True)

    def _save(self, record: SensitivityMap) -> dict[str, Any]:
        record.save(self.out)
        remove(self.partial)
        self.context.store.add("map", self.out)
        return {"map": str(self.out), **facts(record), "estimate": self.estimate}


def remove(partial: Path) -> None:
    """Delete the partial files of all processes of a scan."""
    for file in siblings(partial):
        file.unlink(missing_ok=True)


def facts(record: SensitivityMap) -> dict[str, Any]:
    """A map as the command line prints it."""
    return {
        **record.model_dump(mode="json", include=FACTS),
        "stability": record.measured.get("stability"),
        "race": record.measured.get("race"),
        "trust": record.trust,
    }
