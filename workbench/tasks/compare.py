"""`workbench compare`: which models, prompts and scorers; all of it checked before any sampling."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..comparison.holding import Holding
from ..comparison.pictures import Settings
from ..comparison.run import Entry
from ..comparison.run import compare as run_comparison
from ..comparison.scorers.base import Scorer, check_seeds
from ..comparison.scorers.table import choose_scorers, with_files
from ..comparison.suite import Suite
from ..models.placement import USABLE, choose, sizes_of
from ..models.precision import has_bfloat16
from ..models.sampling_defaults import Sampling
from ..records import BadInput, Comparison, Progress
from ..specs import CompareSpec
from ..specs.placements import PlacementName
from .compare_checks import check_alike, check_model, check_out, names_of
from .compare_quantized import Quantised, quantised_students, write_quantised
from .context import Context, until
from .prompts import general_of, scene_items
from .resolve import Model

PER_CATEGORY = 40  # prompts of the scenes
DEMO_BATCH, BATCH = 16, 4  # pictures sampled at once


def compare(spec: CompareSpec, context: Context) -> Iterator[Progress]:
    """Sample, score and write the page. Result: `facts` of the comparison."""
    request = request_of(spec, context)
    print(f"sampling: {request.sampling.in_words}", file=sys.stderr, flush=True)
    yield from until(context.stop, write_quantised(request.quantised))
    if context.stop():
        return
    held = holding_of(request, spec.placement, context)
    run = run_comparison(
        request.entries, request.suite, request.scorers, request.settings, request.out, held
    )
    for progress in until(context.stop, run):
        if progress.result is None:
            yield progress
        else:
            context.store.add("comparison", request.out)
            result = facts(progress.result, request.out)
            yield progress.model_copy(update={"result": result})


@dataclass(frozen=True)
class Request:
    """A comparison whose models, suite, scorers, names and output are known to be good."""

    entries: list[Entry]
    suite: Suite
    scorers: dict[str, Scorer]
    settings: Settings
    sampling: Sampling
    out: Path
    quantised: Sequence[Quantised] = ()  # entries whose folders are still to be written


def request_of(spec: CompareSpec, context: Context) -> Request:
    """Check everything that a person can get wrong. Raises BadInput; samples and writes nothing."""
    if len(spec.models) < 2:
        found = f"{len(spec.models)} model"
        raise BadInput(found, "a teacher and at least one student", "name a student too")
    return models_request(spec, context)


def models_request(spec: CompareSpec, context: Context, suite: Suite | None = None) -> Request:
    """The same for any number of models. suite: instead of the one that the spec names."""
    compared = [check_model(source, context) for source in spec.models]
    first = compared[0]
    for other in compared[1:]:
        check_alike(first, other)
    if suite is None:
        suite = suite_of(spec.suite, spec.prompts_per_category, first)
    scorers = choose_scorers(spec.scorers, suite.items)
    scorers = with_files(scorers, spec.scorer_files, suite.items)
    check_seeds(scorers, spec.seeds)
    names = names_of(spec.names or [], compared)
    if spec.out:
        check_out(Path(spec.out).absolute())
    sampling = first.sampled(spec.sampling_steps, spec.guidance, spec.size, spec.negative)
    settings = Settings(
        seeds=tuple(range(spec.seeds)),
        steps=sampling.steps,
        guidance=sampling.guidance,
        size=sampling.size,
        dtype=spec.dtype or default_dtype(first, context.device),
        device=context.device,
        batch=DEMO_BATCH if first.bundled else BATCH,
        sampled_as=sampling.sampled_as,
        negative=sampling.negative,
    )
    entries = []
    for name, model in zip(names, compared, strict=True):
        own = own_guidance(model, first) if spec.guidance is None else None
        entries.append(Entry(name, model.folder, own))
    out = Path(spec.out or default_out(context, "-".join(names)[:60])).absolute()
    quantised = quantised_students(spec.quantized or (), entries, compared, out)
    entries += [each.entry for each in quantised]
    return Request(entries, suite, scorers, settings, sampling, out, quantised)


def holding_of(request: Request, placement: PlacementName, context: Context) -> Holding:
    """How the models are held, one after the other; said before the first is loaded."""
    device, dtype = context.device, request.settings.dtype
    folders = [entry.path for entry in request.entries]
    held = choose(placement, folders, device=device, dtype=dtype)
    print(f"placement: {held.in_words}", file=sys.stderr, flush=True)
    everything = sum(sizes_of(folder, device, dtype).transformer for folder in folders)
    together = held.placement.name == "whole" and everything <= USABLE * held.free
    return Holding(held.placement, together, context.prompt_cache)


def default_dtype(first: Model, device: str) -> str | None:
    """bf16 for the bundled teachers, as they are stored and where the device computes in it."""
    narrow = first.bundled and has_bfloat16(torch.device(device).type)
    return "bf16" if narrow else None


def own_guidance(model: Model, first: Model) -> float | None:
    """The guidance of a model that is not sampled as the first one: of the two, one was distilled
    on guided targets. None where it is the first one's.
    """
    if model.sampling.guidance == first.sampling.guidance:
        return None
    return model.sampling.guidance


def default_out(context: Context, name: str) -> Path:
    """A folder for the comparison in the workspace; the same one when the job goes on."""
    if context.folder is None:
        return context.store.out("comparison", name)
    return context.store.workspace / "comparisons" / f"{context.folder.name}-{name}"


def facts(comparison: Comparison, out: Path) -> dict[str, Any]:
    """A comparison as the command line prints it: without the single pictures' scores, which
    comparison.json has.
    """
    rows = []
    for model in comparison.models:
        row = model.model_dump(mode="json")
        for score in row["scores"].values():
            score.pop("per_image", None)
        rows.append(row)
    return {
        "comparison": str(out / "comparison.json"),
        "page": str(out / "index.html"),
        "seconds": comparison.seconds,
        "suite": comparison.suite,
        "prompts": len(comparison.prompts),
        "seeds": len(comparison.seeds),
        "steps": comparison.steps,
        "guidance": comparison.guidance,
        "size": comparison.size,
        "negative": comparison.negative,
        "sampled_as": comparison.sampled_as,
        "placement": comparison.placement,
        "models": rows,
        "retention": {model.name: model.retention for model in comparison.models},
    }


# --- prompts --------------------------------------------------------------------------------------


def suite_of(name: str | None, per_category: int | None, model: Model) -> Suite:
    """The prompts: `scenes`, `general` or a file's; None: scenes for models of the demo."""
    if name is None:
        name = "scenes" if model.bundled else "general"
    if name == "scenes":
        return Suite("scenes", scene_items(per_category or PER_CATEGORY, "eval"))
    if name == "general":
        return Suite("general", [{"prompt": prompt} for prompt in general_of(model)])
    if not Path(name).is_file():
        raise BadInput(
            f"suite {name} does not exist",
            "scenes, general, or a file of prompts",
            "choose one, or check the path",
        )
    return Suite.load(name)
