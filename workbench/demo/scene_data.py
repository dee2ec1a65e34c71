"""The row `scenes` of the data sources: the bundled teacher's own world, rendered and encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..models import Pipeline
from ..records import BadInput, Progress
from ..training.batch_source import Bucket, LatentSource
from ..training.cache import Sample, Shard, write_shard
from ..training.data_sources import CacheRequest, DataSource
from ..training.encode.cache_writer import finish_cache
from ..training.encode.pipeline_calls import text_embeddings
from . import DEFAULT_CFG, DEFAULT_STEPS, SIZE
from .scenes import CATEGORIES, caption, sample_scene
from .training.latents import encode_scenes, pack
from .training.vae import flat_copy

USUAL = 2048  # scenes that a run goes through, again and again under fresh noise
SHARD = 256
RENDERED_TOGETHER = 32
# Seconds that a process waits for scenes which the first renders; as long as it waits for a sum.
PATIENCE = 1800.0
TEACHERS = ("demo", "demo-12")


def is_scenes(data: str) -> bool:
    return data == "scenes"


def usual_count(request: CacheRequest) -> int:
    """How many scenes; 0: no limit."""
    return USUAL if request.count is None else request.count


def scenes_key(request: CacheRequest) -> str:
    """Raises BadInput for another teacher than the bundled ones."""
    if request.teacher not in TEACHERS:
        raise BadInput(
            f"data scenes for a student of {request.teacher}",
            "a student of the bundled teacher, whose world they are",
            "give prompts or pictures",
        )
    return str(usual_count(request))


def cache_scenes(
    pipe: Pipeline, request: CacheRequest, folder: Path, stop: Callable[[], bool]
) -> Iterator[Progress]:
    """Scenes of training seeds as a latent cache, by the demo's fast encoder: five times the speed
    of the stock VAE.

    Without a limit only the first shard; EndlessScenes makes the others when they are asked for.
    """
    total = usual_count(request) or SHARD
    result = {"folder": str(folder), "samples": total, "skipped": [], "stopped": False}
    paths: list[Path] = []
    finished = (folder / "data.json").exists()
    for start in range(0, 0 if finished else total, SHARD):
        path = folder / shard_name(start // SHARD)
        if stop():
            yield Progress(step=start, total=total, result={**result, "stopped": True})
            return
        if not path.exists():
            write_shard(path, scene_samples(pipe, start, min(SHARD, total - start)))
        paths.append(path)
        step = min(start + SHARD, total)
        yield Progress(step=step, total=total, message="rendering and encoding scenes")
    if not finished:
        settings = {"steps": DEFAULT_STEPS, "guidance": DEFAULT_CFG}
        finish_cache(pipe, folder, settings, {(SIZE, SIZE): paths}, [])
    if usual_count(request) == 0:
        (folder / "endless").touch()
    yield Progress(step=total, total=total, message=f"{total} scenes", result=result)


def shard_name(number: int) -> str:
    return f"data-{number:05d}.safetensors"


def scene_samples(pipe: Pipeline, start: int, count: int) -> list[Sample]:
    """Scenes start .. start + count of the training seeds, encoded."""
    twin = flat_copy(pipe.vae)
    scenes = []
    for seed in range(start, start + count):
        scenes.append(sample_scene(CATEGORIES[seed % len(CATEGORIES)], seed))
    mean = torch.tensor(pipe.vae.config["latents_mean"]).view(1, -1, 1, 1)
    std = torch.tensor(pipe.vae.config["latents_std"]).view(1, -1, 1, 1)
    latents = []
    for i in range(0, count, RENDERED_TOGETHER):
        encoded = encode_scenes(twin, scenes[i : i + RENDERED_TOGETHER])
        latents.append(pack((encoded - mean) / std))  # (n, N, 4 z)
    texts = text_embeddings(pipe, [caption(scene) for scene in scenes], (SIZE, SIZE))
    return [Sample(x, text) for x, text in zip(torch.cat(latents), texts, strict=True)]


class EndlessScenes(LatentSource):
    """Scene after scene, none twice in a stage (the next begins with the same).

    Rendered and encoded when a batch first asks for them, and kept on disk. Of several processes
    the first alone has the pipeline; to the others `pipe` is None, and they wait for its shards.
    """

    def __init__(self, pipe: Pipeline | None, folder: Path) -> None:
        finished = LatentSource.from_folder(folder)
        bucket = GrowingBucket(self, finished.buckets[0].shape)
        super().__init__([bucket], family="qwenimage", empty=finished.empty, levels=finished.levels)
        self.pipe = pipe
        self.scenes_folder = folder
        self.folder = folder

    def _places(self, step: int, size: int, seed: int) -> tuple[int, list[int]]:
        places = range(step * size, (step + 1) * size)
        if self.pipe is not None:
            # also what only another process's part of the batch needs: it waits for it
            for number in range(places[0] // SHARD, places[-1] // SHARD + 1):
                self.shard_file(number)
        return 0, list(places)

    def shard_file(self, number: int) -> Path:
        """The shard's file, which is there whole or not at all."""
        path = self.scenes_folder / shard_name(number)
        if self.pipe is not None and not path.exists():
            state = torch.get_rng_state()
            write_shard(path, scene_samples(self.pipe, number * SHARD, SHARD))
            torch.set_rng_state(state)
        end = time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{path} was not written in {PATIENCE:.0f} s: the first process does that"
                )
            time.sleep(0.05)
        return path


class GrowingBucket(Bucket):
    """A bucket whose shards are written as they are read."""

    def __init__(self, source: EndlessScenes, shape: tuple[int, ...]) -> None:
        super().__init__([], shape)
        self.source = source
        self.number = -1  # of the open shard
        self.shard: Shard | None = None

    def __len__(self) -> int:
        return 2**31

    def sample(self, index: int) -> Sample:
        number, place = divmod(index, SHARD)
        if self.shard is None or self.number != number:
            self.shard = Shard(self.source.shard_file(number))
            self.number = number
        return self.shard.sample(place)


def open_scenes(folder: Path, pipe: Pipeline | None) -> LatentSource:
    if (folder / "endless").exists():
        return EndlessScenes(pipe, folder)
    return LatentSource.from_folder(folder)


SCENES = DataSource(
    "The bundled scenes, for students of the bundled teachers.",
    is_scenes,
    scenes_key,
    cache_scenes,
    open_scenes,
)
