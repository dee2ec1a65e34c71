"""Filling the cache, shard by shard: with progress, resumable, and going on past what is broken,
which it names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ... import models
from ...models import Pipeline
from ...records import BadInput, Progress, write_atomic
from .. import Sample, Shard, write_shard
from . import calls, latents, pictures
from .pictures import Picture

Stop = Callable[[], bool]
Numbered = tuple[int, Any]


def cache_prompts(
    pipe: Pipeline,
    prompts: Sequence[str],
    folder: Path | str,
    *,
    size: int,
    steps: int = 10,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 16,
    shard: int = 256,
    stop: Stop = lambda: False,
) -> Iterator[Progress]:
    """Sample a latent per prompt from the pipeline, prompt i with seed + i, and cache them. Result
    as cache_images.
    """

    def encode(items: Sequence[Numbered], size: tuple[int, int]) -> list[Sample]:
        texts = calls.conditions(pipe, [prompt for _, prompt in items], size)
        with calls.last_step(pipe) as newest, torch.no_grad():
            pipe(
                **calls.arguments(
                    pipe, [(prompt, seed + n) for n, prompt in items], size, steps, guidance
                )
            )
        return [Sample(x, text) for x, text in zip(newest[0].float().cpu(), texts, strict=True)]

    settings = {"kind": "prompts", "size": size, "steps": steps, "guidance": guidance, "seed": seed}
    groups = {(size, size): list(enumerate(prompts))}
    return Filling(pipe, Path(folder), settings, encode, batch, shard, stop).run(groups)


def cache_images(
    pipe: Pipeline,
    pairs: Iterable[tuple[Picture, str]],
    folder: Path | str,
    *,
    size: int,
    steps: int = 30,
    guidance: float = 4.0,
    buckets: bool = True,
    batch: int = 16,
    shard: int = 256,
    stop: Stop = lambda: False,
) -> Iterator[Progress]:
    """Encode (picture, caption) pairs at about `size` x `size` pixels, and cache them in shards of
    `shard`.

    buckets: each picture in the common aspect ratio nearest to its own (NovelAI's buckets); else
    all square. What sticks out is cut off. steps and guidance only tell how the model is sampled. A
    picture or caption that cannot be read is skipped and named. An interrupted run goes on with the
    shards it has. Result: {"folder", "samples", "skipped": [{"item", "reason"}], "stopped"}.
    """

    def encode(items: Sequence[Numbered], size: tuple[int, int]) -> list[Sample]:
        made = latents.encoded(pipe, [pictures.opened(picture) for _, (picture, _) in items], size)
        texts = calls.conditions(pipe, [caption for _, (_, caption) in items], size)
        return [Sample(x, text) for x, text in zip(made, texts, strict=True)]

    if models.family_of(pipe.transformer).name not in latents.ENCODERS:
        latents.encoded(pipe, [], size)  # raises, with the reason
    wanted = pictures.sizes(size, 2 * pipe.vae_scale_factor) if buckets else [(size, size)]
    groups: dict[tuple[int, int], list[Numbered]] = {}
    for number, pair in enumerate(pairs):
        groups.setdefault(
            pictures.bucket_of(pair[0], wanted, size) if buckets else (size, size), []
        ).append((number, pair))
    settings = {"kind": "images", "size": size, "steps": steps, "guidance": guidance}
    return Filling(pipe, Path(folder), settings, encode, batch, shard, stop).run(
        dict(sorted(groups.items()))
    )


@dataclass
class Filling:
    """Encodes groups of items, one a size. A shard whose notes say it holds the same items under
    the same settings is kept.
    """

    pipe: Pipeline
    folder: Path
    settings: Mapping[str, Any]
    encode: Callable[[Sequence[Numbered], tuple[int, int]], list[Sample]]
    batch: int
    shard: int
    stop: Stop
    done: int = 0
    number: int = 0  # of the next shard
    skipped: list[dict[str, str]] = field(default_factory=list)

    def run(self, groups: Mapping[tuple[int, int], Sequence[Numbered]]) -> Iterator[Progress]:
        self.total = sum(map(len, groups.values()))
        held: dict[tuple[int, int], list[Path]] = {}
        for size, items in groups.items():
            for group in _batched(items, self.shard):
                path = self.folder / f"data-{self.number:05d}.safetensors"
                key = {
                    "settings": dict(self.settings),
                    "size": list(size),
                    "items": [_label(item) for _, item in group],
                }
                if not _holds(path, key):
                    yield from self._shard(path, group, size, key)
                    if not path.exists():
                        return
                held.setdefault(size, []).append(path)
                self.number += 1
                self.done += len(group)
                self.skipped += Shard(path).notes["skipped"]
                yield Progress(step=self.done, total=self.total, message="encoding")
        self.skipped.sort(key=lambda row: int(row["item"].split()[1].rstrip(":")))  # "item 3: ..."
        result = close(self.pipe, self.folder, self.settings, held, self.skipped)
        message = f"{result['samples']} samples, {len(self.skipped)} skipped"
        yield Progress(step=self.done, total=self.done, message=message, result=result)

    def _shard(
        self, path: Path, group: Sequence[Numbered], size: tuple[int, int], key: Mapping[str, Any]
    ) -> Iterator[Progress]:
        path.unlink(missing_ok=True)
        faults = {number: fault for number, item in group if (fault := pictures.fault(item))}
        made: list[Sample] = []
        for part in _batched([pair for pair in group if pair[0] not in faults], self.batch):
            if self.stop():
                yield Progress(
                    step=self.done,
                    total=self.total,
                    result={"folder": str(self.folder), "stopped": True},
                )
                return
            for (number, _), sample in zip(part, self.encode(part, size), strict=True):
                if bool(torch.isfinite(sample.latents).all()):
                    made.append(sample)
                else:
                    faults[number] = "its latents are not finite"
            yield Progress(step=self.done + len(made), total=self.total, message="encoding")
        named = [
            {"item": _name(number, dict(group)[number]), "reason": fault}
            for number, fault in sorted(faults.items())
        ]
        write_shard(path, made, **key, skipped=named)


def close(
    pipe: Pipeline,
    folder: Path,
    settings: Mapping[str, Any],
    held: Mapping[tuple[int, int], Sequence[Path]],
    skipped: list[dict[str, str]],
) -> dict[str, Any]:
    """The empty prompt, position ids, and data.json, which makes the cache whole. Every shard is
    opened and counted again.
    """
    rows: list[dict[str, Any]] = []
    unit = 2 * pipe.vae_scale_factor
    seen: dict[str, Any] = {}
    for (height, width), paths in held.items():
        seen = calls.first_call(
            pipe, [" "], (height, width), settings["steps"], settings["guidance"]
        )
        ids, name = calls.shared(pipe, seen), f"shared-{height}x{width}.safetensors"
        if ids:
            save_file(ids, folder / name)
        rows.append(
            {
                "size": [height, width],
                "shape": [1, height // unit, width // unit],
                "shards": [path.name for path in paths],
                "samples": sum(len(Shard(path)) for path in paths),
                "shared": name if ids else None,
            }
        )
    if not rows:
        raise BadInput("nothing to encode", "prompts or pictures", "give at least one")
    sampler = _sampler(pipe, seen)
    empty = calls.texts(pipe, calls.first_call(pipe, [" "], (height, width)), 1)[0]
    write_shard(folder / "empty.safetensors", [Sample(torch.zeros(1, 1), empty)])
    samples = sum(int(row["samples"]) for row in rows)
    about = {
        "family": models.family_of(pipe.transformer).name,
        "samples": samples,
        "buckets": rows,
        "settings": dict(settings),
        "skipped": skipped,
        **sampler,
    }
    write_atomic(folder / "data.json", json.dumps(about, indent=1) + "\n")
    return {"folder": str(folder), "samples": samples, "skipped": skipped, "stopped": False}


def _sampler(pipe: Pipeline, seen: Mapping[str, Any]) -> dict[str, Any]:
    """Noise levels of the sampler; guidance that the model embeds; the schedule of a DDPM."""
    inputs = calls.inputs_of(models.family_of(pipe.transformer).name)
    guidance = seen.get(inputs.guidance) if inputs.guidance else None
    return {
        "levels": calls.levels(pipe),
        "guidance": None if guidance is None else float(guidance.flatten()[0]),
        "alphas": pipe.scheduler.alphas_cumprod.tolist() if inputs.ddpm else None,
    }


def _holds(path: Path, key: Mapping[str, Any]) -> bool:
    if not path.exists():
        return False
    try:
        notes = Shard(path).notes
    except BadInput:  # torn by a full disk or a crash of the machine: encoded again
        return False
    return {name: notes.get(name) for name in key} == key


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """itertools.batched, which Python 3.11 lacks."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group


def _label(item: Any) -> str:
    return item if isinstance(item, str) else f"{_place(item[0])}: {item[1]}"


def _place(picture: Picture) -> str:
    return "" if not isinstance(picture, Path | str | pictures.Packed) else str(picture)


def _name(number: int, item: Any) -> str:
    place = item if isinstance(item, str) else _place(item[0])
    return f"item {number}: {place}" if place else f"item {number}"
