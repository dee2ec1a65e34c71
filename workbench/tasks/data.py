"""What a student trains on: the demo's own scenes, a file of prompts, or a folder of pictures; encoded once, cached in the workspace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..data import Sample, write_shard
from ..encode import cache_images, cache_prompts, conditions, image_folder
from ..records import BadInput, Progress, write_atomic
from .locate import DEMO_SAMPLING, GENERAL_PROMPTS, Sampling, read_prompts

SCENES, SHARD = 2048, 256  # pictures of the demo's world that a run goes through, again and again under fresh noise


def cached(pipe: Any, spec: dict[str, Any], how: Sampling, fingerprint: str, demo: bool, workspace: Path,
           stop: Callable[[], bool]) -> Iterator[Progress]:
    """Fill the cache that a spec asks for, as far as it is not there; the last Progress carries its folder.

    spec: data (a prompt file or a folder with metadata.jsonl; without it the demo's scenes or a general list of prompts).
    """
    data = spec.get("data")
    key = hashlib.sha256(json.dumps([fingerprint, vars(how), content(data), demo]).encode()).hexdigest()[:12]
    folder = workspace / "cache" / key
    work: Iterator[Progress]
    if data and Path(data).is_dir():
        work = cache_images(pipe, image_folder(data), folder, size=how.size, stop=stop)
    elif demo and not data:
        work = cache_scenes(pipe, folder, spec.get("scenes") or SCENES, stop)
    else:
        prompts = read_prompts(Path(data)) if data else list(GENERAL_PROMPTS)
        work = cache_prompts(pipe, prompts, folder, size=how.size, steps=how.steps, guidance=how.guidance, stop=stop)
    for progress in work:
        yield progress.model_copy(update={"message": f"data: {progress.message or 'encoding'}", "metrics": {}})


def content(data: str | None) -> str:
    """What tells one data set from another: a prompt file's text, a folder's captions."""
    if not data:
        return ""
    path = Path(data)
    if not path.exists():
        raise BadInput(f"data {path} does not exist", "a folder with metadata.jsonl, or a file of prompts", "check the path")
    if path.is_file():
        return "\n".join(read_prompts(path))
    return "\n".join(f"{file}: {caption}" for file, caption in image_folder(path))


def cache_scenes(pipe: Any, folder: Path, total: int, stop: Callable[[], bool]) -> Iterator[Progress]:
    """Scenes of training seeds as a latent cache, by the demo's fast encoder: five times the speed of the stock VAE."""
    from ..demo.vae import flat_twin

    names: list[str] = []
    if not (folder / "data.json").exists():
        twin = flat_twin(pipe.vae)
        for start in range(0, total, SHARD):
            names.append(f"data-{start // SHARD:05d}.safetensors")
            if stop():
                yield Progress(step=start, total=total, result={"folder": str(folder), "stopped": True})
                return
            if not (folder / names[-1]).exists():
                write_shard(folder / names[-1], scene_samples(pipe, twin, start, min(SHARD, total - start)))
            yield Progress(step=min(start + SHARD, total), total=total, message="rendering and encoding scenes")
        write_shard(folder / "empty.safetensors", [Sample(torch.zeros(1, 1), conditions(pipe, [" "], DEMO_SAMPLING.size)[0])])
        side = DEMO_SAMPLING.size // (2 * pipe.vae_scale_factor)
        about = {"family": models.family_of(pipe.transformer).name, "shape": [1, side, side], "samples": total, "shards": names}
        write_atomic(folder / "data.json", json.dumps(about, indent=1) + "\n")
    yield Progress(step=total, total=total, message="scenes are encoded", result={"folder": str(folder), "samples": total})


def scene_samples(pipe: Any, twin: Any, start: int, count: int) -> list[Sample]:
    from ..demo.latents import encode_scenes, pack
    from ..demo.scenes import CATEGORIES, caption, sample_scene

    scenes = [sample_scene(CATEGORIES[(start + i) % len(CATEGORIES)], start + i) for i in range(count)]
    mean, std = (torch.tensor(pipe.vae.config[k]).view(1, -1, 1, 1) for k in ("latents_mean", "latents_std"))
    latents = torch.cat([pack((encode_scenes(twin, scenes[i: i + 32]) - mean) / std) for i in range(0, count, 32)])  # (n, 64, 4 z)
    return [Sample(x, text) for x, text in zip(latents, conditions(pipe, [caption(s) for s in scenes], DEMO_SAMPLING.size), strict=True)]
