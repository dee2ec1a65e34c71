"""Filling a latent cache, shard by shard: with progress, resumable; items that cannot be encoded
are left out and named.
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
from ...models.sampling_defaults import NO_PROMPT
from ...models.text_limits import note_cut
from ...records import BadInput, Progress, write_atomic
from ...records.picture_size import Size, mean_side
from ...records.picture_size import sides as sides_of
from ..cache import Sample, Shard, write_shard
from . import latents, pictures, pipeline_calls
from .pictures import Pair, Picture

Stop = Callable[[], bool]
Item = str | Pair  # a prompt, or a picture with its caption
Numbered = tuple[int, Item]
Sides = tuple[int, int]  # (height, width) in pixels
Skipped = dict[str, str]  # item, reason


def never() -> bool:
    return False


def cache_prompts(
    pipe: Pipeline,
    prompts: Sequence[str],
    folder: Path | str,
    *,
    size: Size,
    steps: int = 10,
    guidance: float = 4.0,
    negative: str = NO_PROMPT,
    seed: int = 0,
    batch: int = 16,
    shard: int = 256,
    stop: Stop = never,
) -> Iterator[Progress]:
    """Sample a latent per prompt from the pipeline, prompt i with seed + i, and cache them.

    Result as of cache_images.
    """

    def encode(items: Sequence[Numbered], sides: Sides) -> list[Sample]:
        texts = pipeline_calls.text_embeddings(pipe, [str(prompt) for _, prompt in items], sides)
        seeded = [(str(prompt), seed + number) for number, prompt in items]
        with pipeline_calls.sampled_latents(pipe) as newest, torch.no_grad():
            pipe(**pipeline_calls.arguments(pipe, seeded, sides, steps, guidance, negative))
        sampled = newest[0][: len(items)].float().cpu()  # DiT's has both branches
        return [Sample(x, text) for x, text in zip(sampled, texts, strict=True)]

    settings = {"kind": "prompts", "size": size, "steps": steps, "guidance": guidance, "seed": seed}
    settings |= negative_setting(negative)
    groups: dict[Sides, list[Numbered]] = {sides_of(size): list(enumerate(prompts))}
    return CacheWriter(pipe, Path(folder), settings, encode, batch, shard, stop).run(groups)


def cache_images(
    pipe: Pipeline,
    pairs: Iterable[Pair],
    folder: Path | str,
    *,
    size: Size,
    steps: int = 30,
    guidance: float = 4.0,
    negative: str = NO_PROMPT,
    buckets: bool = True,
    batch: int = 16,
    shard: int = 256,
    stop: Stop = never,
) -> Iterator[Progress]:
    """Encode (picture, caption) pairs at about as many pixels as `size` has, and cache them.

    buckets: each picture in the common aspect ratio nearest to its own (NovelAI's buckets); else
    all of that size. What sticks out is cut off. steps and guidance: how the model is sampled, which sets
    the noise levels. A picture or caption that cannot be read is left out and named. An interrupted
    run goes on with the shards it has; one whose pictures changed is encoded again.

    The last Progress has the result {"folder", "samples", "skipped": [{"item", "reason"}],
    "stopped"}. Raises BadInput where nothing is left to train on.
    """

    def encode(items: Sequence[Numbered], sides: Sides) -> list[Sample]:
        group: list[Pair] = [pair for _, pair in items if not isinstance(pair, str)]
        images = [pictures.opened(picture) for picture, _ in group]
        texts = pipeline_calls.text_embeddings(pipe, [caption for _, caption in group], sides)
        encoded = latents.encoded(pipe, images, sides)
        return [Sample(x, text) for x, text in zip(encoded, texts, strict=True)]

    latents.encoder_of(pipe)  # raises for a family without one
    whole = sides_of(size)
    unit = models.size_unit(pipe)
    side = size if isinstance(size, int) else pictures.nearest_multiple(mean_side(size), unit)
    available = pictures.sizes(side, unit) if buckets else [whole]
    groups: dict[Sides, list[Numbered]] = {}
    for number, pair in enumerate(pairs):
        sides = pictures.bucket_of(pair[0], available, side) if buckets else whole
        groups.setdefault(sides, []).append((number, pair))
    settings = {"kind": "images", "size": size, "steps": steps, "guidance": guidance}
    settings |= negative_setting(negative)
    writer = CacheWriter(pipe, Path(folder), settings, encode, batch, shard, stop)
    return writer.run(dict(sorted(groups.items())))


def negative_setting(negative: str) -> dict[str, str]:
    """The negative prompt as a setting of a cache; none where it is the usual one."""
    return {} if negative == NO_PROMPT else {"negative": negative}


@dataclass
class CacheWriter:
    """Encodes groups of items, one group per size.

    A shard whose notes say that it holds the same items under the same settings is kept.
    """

    pipe: Pipeline
    folder: Path
    settings: Mapping[str, Any]
    encode: Callable[[Sequence[Numbered], Sides], list[Sample]]
    batch: int  # items encoded together
    shard: int  # items in a shard
    stop: Stop
    done: int = 0  # items
    total: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def run(self, groups: Mapping[Sides, Sequence[Numbered]]) -> Iterator[Progress]:
        """Write all shards, then data.json."""
        self.total = sum(map(len, groups.values()))
        shards: dict[Sides, list[Path]] = {}
        number = 0
        for sides, items in groups.items():
            for group in batched(items, self.shard):
                path = self.folder / f"data-{number:05d}.safetensors"
                notes = self._notes(group, sides)
                if not holds(path, notes):
                    yield from self._write(path, group, sides, notes)
                    if not path.exists():
                        return  # asked to stop
                shards.setdefault(sides, []).append(path)
                number += 1
                self.done += len(group)
                self.skipped += Shard(path).notes["skipped"]
                yield Progress(step=self.done, total=self.total, message="encoding")
        self.skipped.sort(key=item_number)
        note_cut(self.pipe, captions_of(groups))
        result = finish_cache(self.pipe, self.folder, self.settings, shards, self.skipped)
        message = f"{result['samples']} samples" + skipped_in_words(self.skipped)
        yield Progress(step=self.done, total=self.done, message=message, result=result)

    def _notes(self, group: Sequence[Numbered], sides: Sides) -> dict[str, Any]:
        """What a shard's notes say if it holds these items."""
        items = [identity(item) for _, item in group]
        return {"settings": dict(self.settings), "size": list(sides), "items": items}

    def _write(
        self, path: Path, group: Sequence[Numbered], sides: Sides, notes: Mapping[str, Any]
    ) -> Iterator[Progress]:
        """Encode one shard; where asked to stop, without writing it."""
        path.unlink(missing_ok=True)
        reasons: dict[int, str] = {}
        for number, item in group:
            reason = pictures.fault(item)
            if reason:
                reasons[number] = reason
        samples: list[Sample] = []
        for part in batched([pair for pair in group if pair[0] not in reasons], self.batch):
            if self.stop():
                result = {"folder": str(self.folder), "stopped": True}
                yield Progress(step=self.done, total=self.total, result=result)
                return
            for (number, _), sample in zip(part, self.encode(part, sides), strict=True):
                if bool(torch.isfinite(sample.latents).all()):
                    samples.append(sample)
                else:
                    reasons[number] = "its latents are not finite"
            step = self.done + len(samples)
            yield Progress(step=step, total=self.total, message="encoding")
        items = dict(group)
        skipped = [
            {"item": name_of(number, items[number]), "reason": reason}
            for number, reason in sorted(reasons.items())
        ]
        write_shard(path, samples, **notes, skipped=skipped)


def captions_of(groups: Mapping[Sides, Sequence[Numbered]]) -> list[str]:
    """The prompts or captions of all items."""
    texts = []
    for items in groups.values():
        for _, item in items:
            texts.append(item if isinstance(item, str) else item[1])
    return [text for text in texts if isinstance(text, str)]


def finish_cache(
    pipe: Pipeline,
    folder: Path,
    settings: Mapping[str, Any],
    shards: Mapping[Sides, Sequence[Path]],
    skipped: list[Skipped],
) -> dict[str, Any]:
    """Write the empty prompt, position ids, and data.json, which makes the cache whole.

    Every shard is opened and counted again. Returns the result of cache_images. Raises BadInput
    where no sample is there.
    """
    counts = [len(Shard(path)) for paths in shards.values() for path in paths]
    if not sum(counts):
        raise nothing_encoded(skipped)
    negative = settings.get("negative", NO_PROMPT)
    empty = pipeline_calls.empty_text(pipe, next(iter(shards)), negative)
    call: pipeline_calls.Arguments = {}
    rows = []
    for sides, paths in shards.items():
        call = pipeline_calls.first_call(
            pipe, [pipeline_calls.placeholder(pipe)], sides, settings["steps"], settings["guidance"]
        )
        rows.append(bucket_row(pipe, folder, sides, paths, call))
    sampler = sampler_facts(pipe, call)
    write_shard(folder / "empty.safetensors", [Sample(torch.zeros(1, 1), empty)])
    about = {
        "family": models.family_of(pipe.transformer).name,
        "samples": sum(counts),
        "buckets": rows,
        "settings": dict(settings),
        "skipped": skipped,
        **sampler,
    }
    write_atomic(folder / "data.json", json.dumps(about, indent=1) + "\n")
    return {"folder": str(folder), "samples": sum(counts), "skipped": skipped, "stopped": False}


def bucket_row(
    pipe: Pipeline,
    folder: Path,
    sides: Sides,
    paths: Sequence[Path],
    call: pipeline_calls.Arguments,
) -> dict[str, Any]:
    """One size of pictures in data.json; its position ids are written."""
    height, width = sides
    unit = models.size_unit(pipe)
    ids = pipeline_calls.position_ids(pipe, call)
    shared = f"shared-{height}x{width}.safetensors" if ids else None
    if shared:
        save_file(ids, folder / shared)
    return {
        "size": [height, width],
        "shape": [1, height // unit, width // unit],
        "shards": [path.name for path in paths],
        "samples": sum(len(Shard(path)) for path in paths),
        "shared": shared,
    }


def sampler_facts(pipe: Pipeline, call: Mapping[str, Any]) -> dict[str, Any]:
    """Noise levels of the sampler; guidance that the model takes as an input; a DDPM's alphas."""
    inputs = pipeline_calls.pipeline_inputs(pipe)
    guidance = call.get(inputs.guidance) if inputs.guidance else None
    return {
        "levels": pipeline_calls.sampler_levels(pipe),
        "times": pipeline_calls.sampler_times(pipe) if inputs.timed else None,
        "guidance": None if guidance is None else float(guidance.flatten()[0]),
        "alphas": pipe.scheduler.alphas_cumprod.tolist() if inputs.ddpm else None,
    }


def holds(path: Path, notes: Mapping[str, Any]) -> bool:
    """Whether a sound shard with these notes is there."""
    if not path.exists():
        return False
    try:
        written = Shard(path).notes
    except BadInput:  # damaged by a full disk or a crash of the machine: encoded again
        return False
    return {name: written.get(name) for name in notes} == notes


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """itertools.batched, which Python 3.11 lacks."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group


# --- items in words -------------------------------------------------------------------------------


def identity(item: Item) -> str:
    """What tells an item from another one: the prompt, or caption and content of a picture."""
    if isinstance(item, str):
        return item
    picture, caption = item
    return f"{pictures.identity(picture)}: {caption}"


def name_of(number: int, item: Item) -> str:
    """An item as people can find it: `item 3: folder/a.png`."""
    name = item if isinstance(item, str) else place_of(item[0])
    return f"item {number}: {name}" if name else f"item {number}"


def place_of(picture: Picture) -> str:
    return str(picture) if isinstance(picture, Path | str | pictures.Stored) else ""


def item_number(skipped: Skipped) -> int:
    return int(skipped["item"].split()[1].rstrip(":"))


def skipped_in_words(skipped: Sequence[Skipped]) -> str:
    """`, 17 skipped; the first: item 3: a.png (no caption)`; nothing where none was."""
    if not skipped:
        return ""
    return f", {len(skipped)} skipped; the first: {skipped[0]['item']} ({skipped[0]['reason']})"


def nothing_encoded(skipped: Sequence[Skipped]) -> BadInput:
    """The error of a cache without samples, with the first reason."""
    found = f"no prompt or picture to train on{skipped_in_words(skipped)}"
    return BadInput(found, "at least one that can be encoded", "correct the training data")
