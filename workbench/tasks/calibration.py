"""What a map is measured on: prompts through the teacher's own sampler, recorded inputs, or
pictures and a scorer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import models
from ..comparison.scorers import AnyScorer
from ..comparison.scorers import run as scored
from ..records import BadInput
from ..sensitivity import METRICS
from .compare import SceneScorer, scorers_of, suite_of
from .context import Context
from .profile_shards import share_of
from .prompts import GENERAL_PROMPTS, prompts_for, read_prompts, scenes
from .resolve import bundled, resolve, sampling

# unless told otherwise; where blocks are trained; at most, where they are added until stable
PROMPTS, TRAINING, MOST = 20, 40, 200


@dataclass
class Source:
    """Calls to measure on. `pairs` prompts times seeds, `sampling` forwards to get them, `prompts`
    different ones.
    """

    transformer: Any
    calls: Iterable[models.Call]
    total: int
    measured: dict[str, Any]
    sampling: int = 0
    pairs: int = 0
    prompts: int | None = None


@dataclass
class Pictures:
    """Pictures to sample, and who scores them."""

    pipe: models.Pipeline
    prompts: list[str]
    score: Callable[[Sequence[Any], Sequence[Any]], Sequence[float]]
    scorer: str
    measured: dict[str, Any]
    different: int
    how: dict[str, Any] = field(default_factory=dict)


def from_prompts(path: Path, name: str, spec: dict[str, Any], context: Context) -> Source:
    """The teacher's own trajectories over calibration prompts."""
    how, seeds = sampling(path, name, spec), int(spec.get("seeds") or 1)
    trains = METRICS[spec.get("metric") or "prediction"].needs == "training"
    prompts = (
        many(path, name, spec.get("prompts"), TRAINING if trains else MOST)
        if trains or spec.get("until_stable")
        else prompts_for(resolve(spec["teacher"], context.store), spec.get("prompts"), PROMPTS)
    )
    timesteps, batch = int(spec.get("timesteps") or 8), int(spec.get("batch") or 8)
    share = share_of(spec)
    pipe = models.load_pipeline(path, device=context.device, dtype=spec.get("dtype"))
    pairs = [(prompt, seed) for seed in range(seeds) for prompt in prompts]
    if trains:
        # the prompts that are held out are not trained on under other seeds
        pairs.sort(key=lambda pair: prompts.index(pair[0]))
    batch = min(batch, -(-len(pairs) // share.count))  # every process has one
    calls = models.trajectories(
        pipe,
        [p for p, _ in pairs],
        seeds=[s for _, s in pairs],
        steps=how.steps,
        guidance=how.guidance,
        size=how.size,
        timesteps=timesteps,
        batch=batch,
        shard=(share.number, share.count),
    )
    groups = len(range(share.number, -(-len(pairs) // batch), share.count))
    family = models.family_of(pipe.transformer)
    forwards = 2 if family.negative and how.guidance > 1 and not family.batched else 1
    measured = {
        "prompts": prompts,
        "prompts_hash": models.text_hash(prompts),
        "seeds": seeds,
        "timesteps": timesteps,
        **vars(how),
    }
    return Source(
        pipe.transformer,
        calls,
        groups * len(models.chosen_steps(how.steps, timesteps)),
        measured,
        groups * how.steps * forwards,
        len(pairs),
        len(prompts),
    )


def many(path: Path, name: str, file: str | None, most: int = MOST) -> list[str]:
    """A file's lines, up to MOST; else the demo's scenes, category after category in turn, up to
    `most`; else the general list.
    """
    if file:
        return read_prompts(Path(file))[:MOST]
    if bundled(path, name):
        count = most // 5
        each = scenes(count, "validation")
        return [
            each[category * count + index][0]
            for index in range(count)
            for category in range(len(each) // count)
        ]
    return list(GENERAL_PROMPTS)


def from_file(path: Path, spec: dict[str, Any], context: Context) -> Source:
    """Recorded transformer inputs: any family, no pipeline needed. Their conditional calls are
    measured on.
    """
    file, share = Path(spec["inputs"]), share_of(spec)
    if spec.get("prompts"):
        raise BadInput("--inputs with --prompts", "one of them", "leave --prompts out")
    calls = [call for call in models.load_inputs(file) if call.branch == "cond"]
    transformer = models.load_transformer(path, device=context.device, dtype=spec.get("dtype"))
    measured = {
        "inputs": file.name,
        "inputs_hash": hashlib.sha256(file.read_bytes()).hexdigest()[:12],
        "timesteps": len({call.timestep for call in calls}),
    }
    mine = calls[share.number :: share.count]
    return Source(transformer, mine, len(mine), measured)


def pictures(path: Path, name: str, spec: dict[str, Any], context: Context) -> Pictures:
    """Prompts and a scorer: the demo's scenes and their scorer, else SSIM to the teacher's own
    pictures.
    """
    how, seeds = sampling(path, name, spec), int(spec.get("seeds") or 1)
    if spec.get("prompts"):
        items = [{"prompt": prompt} for prompt in read_prompts(Path(spec["prompts"]))]
    else:
        items = suite_of({"prompts_per_category": 4}, bundled(path, name)).items
    title = spec.get("scorer") or ("scenes" if all("scene" in item for item in items) else "ssim")
    suite = suite_of({"suite": None}, False)
    scorer: AnyScorer = SceneScorer() if title == "scenes" else scorers_of([title], suite)[title]
    pairs = [(item, seed) for seed in range(seeds) for item in items]

    def score(images: Sequence[Any], own: Sequence[Any]) -> list[float]:
        found = scored(scorer, images, [item for item, _ in pairs], own)
        if "per_image" not in found:
            raise BadInput(
                f"scorer {title} has no value per picture",
                "a scorer with per_image",
                "choose another --scorer",
            )
        return [
            -value if str(found.get("direction", "")).startswith("lower") else value
            for value in found["per_image"]
        ]

    prompts = [item["prompt"] for item in items]
    measured = {
        "prompts": prompts,
        "prompts_hash": models.text_hash(prompts),
        "seeds": seeds,
        **vars(how),
    }
    pipe = models.load_pipeline(path, device=context.device, dtype=spec.get("dtype"))
    return Pictures(
        pipe,
        [item["prompt"] for item, _ in pairs],
        score,
        title,
        measured,
        len(items),
        {"seeds": [seed for _, seed in pairs], **vars(how), "batch": int(spec.get("batch") or 16)},
    )
