"""What a student trains on: the demo's own scenes, a file of prompts, pictures with captions;
encoded once, cached in the workspace.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..records import BadInput, Progress
from ..training.cache import Sample, Shard, write_shard
from ..training.encode.cache_writer import cache_images, cache_prompts, finish_cache
from ..training.encode.pictures import pictures_in
from ..training.encode.pipeline_calls import text_embeddings
from ..training.source import Bucket, LatentSource, Source
from .prompts import GENERAL_PROMPTS, read_prompts
from .resolve import DEMO_SAMPLING, Sampling

# pictures of the demo's world that a run goes through, again and again under fresh noise
SCENES, SHARD = 2048, 256
SCENES_NAME = "scenes"
# seconds that a process waits for scenes which the first renders; as long as it waits for a sum
PATIENCE = 1800.0
LAYOUT = 2  # of the cache: older ones are made again


def sources(
    pipe: Any,
    spec: dict[str, Any],
    names: list[str | None],
    how: Sampling,
    fingerprint: str,
    demo: bool,
    workspace: Path,
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    """Make the caches that a run needs, as far as they are not there; the last Progress carries
    {name: Source}, or None when stopped.

    names: what the run (None: what the spec or the teacher says) and its stages ask for.
    """
    found: dict[str | None, Source] = {}
    for name in names:
        data = spec.get("data") if name is None else name
        for progress in cached(pipe, data, spec, how, fingerprint, demo, workspace, stop):
            if progress.result is None:
                yield progress
            elif progress.result.get("stopped"):
                yield Progress(step=0, total=1, message="stopped")
                return
            elif progress.result.get("endless"):
                found[name] = EndlessScenes(pipe, Path(progress.result["folder"]))
            else:
                found[name] = LatentSource.from_folder(progress.result["folder"])
    yield Progress(step=1, total=1, result=found)


def cached(
    pipe: Any,
    data: str | None,
    spec: dict[str, Any],
    how: Sampling,
    fingerprint: str,
    demo: bool,
    workspace: Path,
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    """Fill one cache; the last Progress carries its folder, samples and what was skipped.

    data: a prompt file, a folder with metadata.jsonl or tar files, a tar file, `scenes`; None: the
    demo's scenes for the demo, else a general list of prompts. spec: scenes (how many, 0: without
    end), square (all pictures, in place of aspect buckets).
    """
    scenes = data == SCENES_NAME or (demo and not data)
    if scenes and not demo:
        raise BadInput(
            "data scenes",
            "a student of the bundled teacher, whose world they are",
            "give prompts or pictures",
        )
    count, buckets = (
        SCENES if spec.get("scenes") is None else int(spec["scenes"]),
        not spec.get("square"),
    )
    key = hashlib.sha256(
        json.dumps(
            [LAYOUT, fingerprint, vars(how), content(data), scenes and count, buckets]
        ).encode()
    ).hexdigest()[:12]
    folder = workspace / "cache" / key
    work: Iterator[Progress]
    if scenes:
        work = cache_scenes(pipe, folder, count, stop)
    elif data and pictured(Path(data)):
        work = cache_images(
            pipe,
            pictures_in(data),
            folder,
            size=how.size,
            steps=how.steps,
            guidance=how.guidance,
            buckets=buckets,
            stop=stop,
        )
    else:
        prompts = read_prompts(Path(data)) if data else list(GENERAL_PROMPTS)
        work = cache_prompts(
            pipe, prompts, folder, size=how.size, steps=how.steps, guidance=how.guidance, stop=stop
        )
    for progress in work:
        yield progress.model_copy(
            update={"message": f"data: {progress.message or 'encoding'}", "metrics": {}}
        )


def pictured(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".tar"


def content(data: str | None) -> str:
    """What tells one data set from another: a prompt file's text, a folder's captions, the sizes of
    tar files.
    """
    if not data or data == SCENES_NAME:
        return data or ""
    path = Path(data)
    if not path.exists():
        raise BadInput(
            f"data {path} does not exist",
            "a folder with metadata.jsonl or tar files, a tar file, or a file of prompts",
            "check the path",
        )
    if not pictured(path):
        return "\n".join(read_prompts(path))
    shards = [path] if path.is_file() else sorted(path.glob("*.tar"))
    if shards and not (path / "metadata.jsonl").exists():
        return "\n".join(
            f"{shard} {shard.stat().st_size} {shard.stat().st_mtime_ns}" for shard in shards
        )
    return "\n".join(f"{file}: {caption}" for file, caption in pictures_in(path))


# --- the demo's scenes ----------------------------------------------------------------------------


def cache_scenes(
    pipe: Any, folder: Path, total: int, stop: Callable[[], bool]
) -> Iterator[Progress]:
    """Scenes of training seeds as a latent cache, by the demo's fast encoder: five times the speed
    of the stock VAE.

    total 0: the first shard alone; EndlessScenes makes the others when they are asked for.
    """
    first, result = (
        total or SHARD,
        {"folder": str(folder), "samples": total, "skipped": [], "endless": not total},
    )
    paths: list[Path] = []
    if not (folder / "data.json").exists():
        for start in range(0, first, SHARD):
            paths.append(folder / shard_name(start // SHARD))
            if stop():
                yield Progress(
                    step=start, total=first, result={"folder": str(folder), "stopped": True}
                )
                return
            if not paths[-1].exists():
                write_shard(paths[-1], scene_samples(pipe, start, min(SHARD, first - start)))
            yield Progress(
                step=min(start + SHARD, first), total=first, message="rendering and encoding scenes"
            )
        how = {"steps": DEMO_SAMPLING.steps, "guidance": DEMO_SAMPLING.guidance}
        finish_cache(pipe, folder, how, {(DEMO_SAMPLING.size, DEMO_SAMPLING.size): paths}, [])
    yield Progress(step=first, total=first, message="scenes are encoded", result=result)


def shard_name(number: int) -> str:
    return f"data-{number:05d}.safetensors"


def scene_samples(pipe: Any, start: int, count: int) -> list[Sample]:
    from ..demo.scenes import CATEGORIES, caption, sample_scene
    from ..demo.training.latents import encode_scenes, pack
    from ..demo.training.vae import flat_copy

    twin = flat_copy(pipe.vae)
    scenes = [
        sample_scene(CATEGORIES[(start + i) % len(CATEGORIES)], start + i) for i in range(count)
    ]
    mean, std = (
        torch.tensor(pipe.vae.config[k]).view(1, -1, 1, 1) for k in ("latents_mean", "latents_std")
    )
    # (n, 64, 4 z)
    latents = torch.cat(
        [pack((encode_scenes(twin, scenes[i : i + 32]) - mean) / std) for i in range(0, count, 32)]
    )
    return [
        Sample(x, text)
        for x, text in zip(
            latents,
            text_embeddings(pipe, [caption(s) for s in scenes], DEMO_SAMPLING.size),
            strict=True,
        )
    ]


class EndlessScenes(LatentSource):
    """Scene after scene, none twice in a stage (the next begins with the same): rendered and
    encoded when a batch first asks for it.

    They are kept on disk. Of several processes the first alone has the pipeline; to the others pipe
    is None, and they wait for its shards.
    """

    def __init__(self, pipe: Any, folder: Path) -> None:
        whole = LatentSource.from_folder(folder)
        super().__init__(
            [Unfolding(self, whole.buckets[0].shape)],
            family="qwenimage",
            empty=whole.empty,
            levels=whole.levels,
        )
        self.pipe, self.folder = pipe, folder

    def _places(self, step: int, size: int, seed: int) -> tuple[int, list[int]]:
        places = range(step * size, (step + 1) * size)
        for number in range(places[0] // SHARD, places[-1] // SHARD + 1) if self.pipe else ():
            # also what only another process's part of the batch needs: it waits for it
            self.made(number)
        return 0, list(places)

    def made(self, number: int) -> Path:
        """The shard's file, which is there whole or not at all."""
        assert self.folder is not None
        path, end = self.folder / shard_name(number), time.monotonic() + PATIENCE
        if self.pipe and not path.exists():
            state = torch.get_rng_state()
            write_shard(path, scene_samples(self.pipe, number * SHARD, SHARD))
            torch.set_rng_state(state)
        while not path.exists():
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{path} has not come in {PATIENCE:.0f} s: the first process writes it"
                )
            time.sleep(0.05)
        return path


class Unfolding(Bucket):
    """A bucket whose shards come into being as they are read."""

    def __init__(self, source: EndlessScenes, shape: tuple[int, ...]) -> None:
        super().__init__([], shape)
        self.source = source
        self.held: tuple[int, Shard | None] = (-1, None)

    def __len__(self) -> int:
        return 2**31

    def sample(self, index: int) -> Sample:
        number, place = divmod(index, SHARD)
        if self.held[0] != number:
            self.held = (number, Shard(self.source.made(number)))
        assert self.held[1] is not None
        return self.held[1].sample(place)
