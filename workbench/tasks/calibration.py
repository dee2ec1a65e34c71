"""What a map is measured on: prompts through the teacher's own sampler, recorded inputs, or
pictures and a scorer.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from .. import models
from ..comparison.scorers.base import check_seeds, score_pictures
from ..comparison.scorers.table import choose_scorers
from ..comparison.statistics import Item
from ..models import Call
from ..models.placement import Choice, load_placed
from ..models.prompt_encodings import Prompts
from ..records import BadInput
from ..sensitivity.pictures import Generation, Score
from ..sensitivity.table import METRICS
from ..specs import ProfileSpec
from .compare import suite_of
from .context import Context
from .profile_shards import WHOLE, Share
from .prompts import (
    CATEGORIES,
    general_of,
    prompt_seed_pairs,
    prompts_for,
    read_prompts,
    scene_items,
)
from .resolve import Model, Sampling

PROMPTS = 20  # calibration prompts of a scan
TRAINING_PROMPTS = 40  # of a scan that trains on some of them and scores on the others
ORDER_SEED = 0  # of the order of a race's prompts
MOST_PROMPTS = 200  # that --until-stable adds
SCENES_PER_CATEGORY = 4  # of the demo's, for pictures
BATCH = 8
PICTURE_BATCH = 16


@dataclass
class Source:
    """Calls to measure on: `total` of them, after `sampling` forwards of the sampler.

    measured: facts about them for the map.
    """

    transformer: nn.Module
    calls: Iterable[Call]
    total: int
    measured: dict[str, Any]
    sampling: int = 0


@dataclass
class Pictures:
    """Pictures to sample, one per prompt and seed of `generation`, and who scores them."""

    pipe: models.Pipeline
    prompts: list[str]
    generation: Generation
    score: Score
    scorer: str
    measured: dict[str, Any]


def sampling_of(model: Model, spec: ProfileSpec) -> Sampling:
    """Steps, guidance and size: as the spec says, else as the model is meant to be sampled."""
    return model.sampled(spec.sampling_steps, spec.guidance, spec.size, spec.negative)


# --- prompts --------------------------------------------------------------------------------------


def from_prompts(
    model: Model, spec: ProfileSpec, context: Context, held: Choice, share: Share = WHOLE
) -> Source:
    """The teacher's own trajectories over calibration prompts."""
    how = sampling_of(model, spec)
    prompts = prompts_of(model, spec)
    pairs = prompt_seed_pairs(prompts, spec.seeds, together=holds_prompts_out(spec))
    batch = min(spec.batch or BATCH, math.ceil(len(pairs) / share.count))  # every process has one
    request = Prompts(
        [prompt for prompt, _ in pairs],
        [seed for _, seed in pairs],
        how.steps,
        how.guidance,
        how.size,
        batch,
        how.negative,
    )
    pipe = placed_pipeline(model, spec, context, held, request)
    calls = models.trajectories(
        pipe, **vars(request), timesteps=spec.timesteps, shard=(share.number, share.count)
    )
    batches = len(range(share.number, math.ceil(len(pairs) / batch), share.count))
    measured = {
        **prompt_facts(prompts, spec.seeds, how),
        "timesteps": spec.timesteps,
        **held.facts(),
    }
    return Source(
        pipe.transformer,
        calls,
        batches * len(models.chosen_steps(how.steps, spec.timesteps)),
        measured,
        batches * how.steps * forwards_per_step(pipe.transformer, how.guidance),
    )


def placed_pipeline(
    model: Model, spec: ProfileSpec, context: Context, held: Choice, request: Prompts
) -> models.Pipeline:
    return load_placed(
        model.folder,
        held.placement,
        device=context.device,
        dtype=spec.dtype,
        cache=context.prompt_cache,
        ahead=[request],
        weights=held.weights,
    )


def prompts_of(model: Model, spec: ProfileSpec) -> list[str]:
    """The calibration prompts: as many as the scan may need. For a race in an order drawn with a
    fixed seed: it decides by the first ones, and a file is often sorted by subject."""
    prompts = prompts_in_order(model, spec)
    if spec.race is not None:
        return random.Random(ORDER_SEED).sample(prompts, len(prompts))
    return prompts


def prompts_in_order(model: Model, spec: ProfileSpec) -> list[str]:
    if holds_prompts_out(spec):
        return many_prompts(model, spec.prompts, TRAINING_PROMPTS)
    if spec.until_stable:
        return many_prompts(model, spec.prompts, MOST_PROMPTS)
    return prompts_for(model, spec.prompts, PROMPTS)


def holds_prompts_out(spec: ProfileSpec) -> bool:
    """Whether the metric trains on some prompts and scores on others."""
    return METRICS[spec.metric].trains


def many_prompts(model: Model, file: str | None, most: int) -> list[str]:
    """A file's lines, up to MOST_PROMPTS; else the demo's scenes, one category after the other in
    turn, up to `most`; else the general list.
    """
    if file:
        return read_prompts(file)[:MOST_PROMPTS]
    if not model.bundled:
        return general_of(model)
    per_category = most // CATEGORIES
    captions = [item["prompt"] for item in scene_items(per_category, "validation")]
    in_turn = []
    for index in range(per_category):
        in_turn += captions[index::per_category]
    return in_turn


def prompt_facts(prompts: list[str], seeds: int, how: Sampling) -> dict[str, Any]:
    """What a map says about its prompts and how they were sampled."""
    return {
        "prompts": prompts,
        "prompts_hash": models.text_hash(prompts),
        "seeds": seeds,
        **vars(how),
    }


def forwards_per_step(transformer: nn.Module, guidance: float) -> int:
    """Transformer forwards of one sampling step: two where the branches are not one batch."""
    family = models.family_of(transformer)
    return 2 if family.negative and guidance > 1 and not family.batched else 1


# --- recorded inputs ------------------------------------------------------------------------------


def from_file(
    path: Path, spec: ProfileSpec, context: Context, held: Choice, share: Share = WHOLE
) -> Source:
    """Recorded transformer inputs: any family, no pipeline needed. Their conditional calls are
    measured on.
    """
    file = Path(spec.inputs or "")
    calls = [call for call in models.load_inputs(file) if call.branch == "cond"]
    transformer = models.load_transformer(
        path,
        device=context.device,
        dtype=spec.dtype,
        streamed=held.placement.streamed,
        weights=held.weights,
    )
    measured = {
        "inputs": file.name,
        "inputs_hash": hashlib.sha256(file.read_bytes()).hexdigest()[:12],
        "timesteps": len({call.timestep for call in calls}),
        **held.facts(),
    }
    own = calls[share.number :: share.count]
    return Source(transformer, own, len(own), measured)


# --- pictures -------------------------------------------------------------------------------------


def pictures(model: Model, spec: ProfileSpec, context: Context, held: Choice) -> Pictures:
    """Prompts and a scorer: the demo's scenes and their scorer, else SSIM to the teacher's own
    pictures.
    """
    how = sampling_of(model, spec)
    if spec.prompts:
        items: list[Item] = [{"prompt": prompt} for prompt in read_prompts(spec.prompts)]
    else:
        items = suite_of(None, SCENES_PER_CATEGORY, model).items
    prompts = [item["prompt"] for item in items]
    scorer = spec.scorer or next(iter(choose_scorers(None, items)))
    pairs = [(item, seed) for seed, item in product(range(spec.seeds), items)]
    # Before the pipeline is loaded: an unknown scorer is refused at once.
    check_seeds(choose_scorers([scorer], items), spec.seeds)
    score = scorer_function(scorer, [item for item, _ in pairs], context.device)
    generation = Generation(
        [seed for _, seed in pairs],
        how.steps,
        how.guidance,
        how.size,
        spec.batch or PICTURE_BATCH,
        how.negative,
    )
    request = Prompts([item["prompt"] for item, _ in pairs], **vars(generation))
    return Pictures(
        placed_pipeline(model, spec, context, held, request),
        list(request.prompts),
        generation,
        score,
        scorer,
        {**prompt_facts(prompts, spec.seeds, how), **held.facts()},
    )


def scorer_function(name: str, items: Sequence[Item], device: str) -> Score:
    """A registered scorer's values per picture, higher = better."""
    scorer = choose_scorers([name], items)[name]
    if scorer.takes != "pictures":
        raise BadInput(f"--scorer {name}", "a scorer of pictures", "use it with compare")
    scorer.prepare(device)

    def score(images: Sequence[Any], own: Sequence[Any]) -> list[float]:
        result = score_pictures(scorer, images, items, own)
        if result.per_image is None:
            raise BadInput(
                f"scorer {name} has no value per picture",
                "a scorer that returns one",
                "choose another --scorer",
            )
        sign = 1 if result.higher_is_better else -1
        return [sign * value for value in result.per_image]

    return score
