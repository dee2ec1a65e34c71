"""Filling a latent cache with a teacher's own pipeline: from prompts alone, or from pictures with captions.

`cache_prompts` samples the latents from the teacher; `cache_images` encodes pictures. Text is embedded by the pipeline itself: it
is called, and stopped when it hands its transformer the arguments, so no family needs code for that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from . import models
from .data import Sample, Shard, Text, inputs_of, write_shard
from .records import BadInput, Progress, read_text, write_atomic

Pipe = Any  # a diffusers pipeline: their classes share no typed base
Picture = Image.Image | Path | str


def encode_qwen(pipe: Pipe, images: Sequence[Image.Image], size: int) -> torch.Tensor:
    """Pictures as the normalised, packed latents the transformer takes: (B, (size/16)^2, 4 z)."""
    vae = pipe.vae
    pixels = pipe.image_processor.preprocess(list(images), size, size).to(vae.device, vae.dtype)  # (B, 3, H, W)
    latents = vae.encode(pixels[:, :, None]).latent_dist.mode()  # (B, z, 1, h, w)
    mean, std = (torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1, 1)
                 for values in (vae.config.latents_mean, vae.config.latents_std))
    count, channels, _, height, width = latents.shape
    return pipe._pack_latents((latents - mean) / std, count, channels, height, width)


ENCODERS: dict[str, Callable[[Pipe, Sequence[Image.Image], int], torch.Tensor]] = {"qwenimage": encode_qwen}


# --- filling a cache -----------------------------------------------------------------------------------------------


def cache_prompts(pipe: Pipe, prompts: Sequence[str], folder: Path | str, *, size: int, steps: int = 10, guidance: float = 4.0,
                  seed: int = 0, batch: int = 16, shard: int = 256, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
    """Sample a latent per prompt from the pipeline, prompt i with seed + i, and cache them. Result as cache_images."""
    settings = {"kind": "prompts", "size": size, "steps": steps, "guidance": guidance, "seed": seed}

    def encode(items: Sequence[tuple[int, str]]) -> list[Sample]:
        group = [(prompt, seed + number) for number, prompt in items]
        arguments = models._arguments(pipe, group, steps, guidance, " ", size)
        with _first_call(pipe, stop=False) as seen:
            latents = pipe(**arguments, output_type="latent").images  # (B, N, C)
        return [Sample(x, text) for x, text in zip(latents.float().cpu(), _texts(pipe, seen, len(items)), strict=True)]

    return _fill(pipe, enumerate(prompts), len(prompts), Path(folder), settings, encode, batch, shard, stop)


def cache_images(pipe: Pipe, pairs: Iterable[tuple[Picture, str]], folder: Path | str, *, size: int,
                 batch: int = 16, shard: int = 256, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
    """Encode (picture, caption) pairs, scaled to `size` pixels square, and cache them in shards of `shard`.

    A picture or caption that cannot be read is skipped and named. An interrupted run goes on with the shards it has.
    Result: {"folder", "samples", "skipped": [{"item", "reason"}], "stopped"}.
    """
    encode_images = ENCODERS.get(models.family_of(pipe.transformer).name)
    if encode_images is None:
        raise BadInput(f"family {models.family_of(pipe.transformer).name} has no picture encoder", "one of " + ", ".join(ENCODERS),
                       "distil on prompts instead")

    def encode(items: Sequence[tuple[int, tuple[Picture, str]]]) -> list[Sample]:
        with torch.no_grad():
            latents = encode_images(pipe, [_opened(picture) for _, (picture, _) in items], size).float().cpu()
        texts = conditions(pipe, [caption for _, (_, caption) in items], size)
        return [Sample(x, text) for x, text in zip(latents, texts, strict=True)]

    total = len(pairs) if isinstance(pairs, Sequence) else 0
    return _fill(pipe, enumerate(pairs), total, Path(folder), {"kind": "images", "size": size}, encode, batch, shard, stop)


def image_folder(folder: Path | str) -> list[tuple[Path, str]]:
    """(picture, caption) pairs of a folder with metadata.jsonl: `file_name` and `text` (the Hub's ImageFolder layout).

    A line that is no JSON object has an empty path or caption, which cache_images then names.
    """
    pairs = []
    for line in read_text(Path(folder) / "metadata.jsonl", "captions").splitlines():
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError:
            row = {}
        if row is not None:
            row = row if isinstance(row, dict) else {}
            caption = row.get("text", row.get("caption", row.get("prompt", "")))
            pairs.append((Path(folder) / str(row.get("file_name", "")), caption if isinstance(caption, str) else ""))
    if not pairs:
        raise BadInput(f"{folder}/metadata.jsonl names no picture", "lines of {\"file_name\", \"text\"}", "fill it")
    return pairs


def _opened(picture: Picture) -> Image.Image:
    return (picture if isinstance(picture, Image.Image) else Image.open(picture)).convert("RGB")


def _fault(item: Any) -> str | None:
    """Why an item cannot be encoded; None where it can."""
    if isinstance(item, str):
        return None if item.strip() else "empty prompt"
    picture, caption = item
    if not isinstance(caption, str) or not caption.strip():
        return "no caption"
    try:
        _opened(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"not a readable picture ({str(error)[:100]})"
    return None


def _fill(pipe: Pipe, items: Iterable[tuple[int, Any]], total: int, folder: Path, settings: Mapping[str, Any],
          encode: Callable[[Sequence[Any]], list[Sample]], batch: int, shard: int, stop: Callable[[], bool]) -> Iterator[Progress]:
    """Encode shard by shard. A shard whose notes say it holds the same items under the same settings is kept."""
    done, names, skipped, samples = 0, [], [], 0
    for number, group in enumerate(_batched(items, shard)):
        path = folder / f"data-{number:05d}.safetensors"
        labels = [str(item if isinstance(item, str) else item[1]) for _, item in group]
        key = {"settings": dict(settings), "items": labels}
        held = Shard(path).notes if path.exists() else {}
        if {k: held.get(k) for k in key} != key:
            faults = {n: fault for n, item in group if (fault := _fault(item))}
            good = [pair for pair in group if pair[0] not in faults]
            made: list[Sample] = []
            for part in _batched(good, batch):
                if stop():
                    yield Progress(step=done, total=total, result={"folder": str(folder), "stopped": True})
                    return
                made += encode(part)
                yield Progress(step=done + len(made), total=total, message="encoding")
            named = [{"item": _name(n, dict(group)[n]), "reason": fault} for n, fault in faults.items()]
            write_shard(path, made, **key, skipped=named)
        names.append(path.name)
        skipped += Shard(path).notes["skipped"]
        samples += len(Shard(path))
        done += len(group)
        yield Progress(step=done, total=max(total, done), message="encoding")
    result = _close(pipe, folder, settings, names, samples, skipped)
    yield Progress(step=done, total=done, message=f"{samples} samples, {len(skipped)} skipped", result=result)


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """itertools.batched, which Python 3.11 lacks."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group


def _name(number: int, item: Any) -> str:
    picture = item if isinstance(item, str) else item[0]
    return f"item {number}: {picture}" if isinstance(picture, Path | str) else f"item {number}"


def _close(pipe: Pipe, folder: Path, settings: Mapping[str, Any], names: list[str], samples: int,
           skipped: list[dict[str, str]]) -> dict[str, Any]:
    """The empty prompt and data.json, which makes the cache whole."""
    size = settings["size"]
    text = conditions(pipe, [" "], size)[0]
    write_shard(folder / "empty.safetensors", [Sample(torch.zeros(1, 1), text)])
    side = size // (2 * pipe.vae_scale_factor)
    about = {"family": models.family_of(pipe.transformer).name, "shape": [1, side, side], "samples": samples, "shards": names,
             "settings": dict(settings), "skipped": skipped}
    write_atomic(folder / "data.json", json.dumps(about, indent=1) + "\n")
    return {"folder": str(folder), "samples": samples, "skipped": skipped, "stopped": False}


# --- what the pipeline hands its transformer --------------------------------------------------------------------------


class _Enough(Exception):
    """Ends a pipeline's call once its transformer's arguments are known."""


@contextmanager
def _first_call(pipe: Pipe, *, stop: bool) -> Iterator[dict[str, Any]]:
    """The arguments of the transformer's first (conditional) call; with `stop`, the pipeline's call ends there."""
    seen: dict[str, Any] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.update(kwargs)
        if stop:
            raise _Enough

    handle = pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield seen
    except _Enough:
        pass
    finally:
        handle.remove()


def first_call(pipe: Pipe, prompts: Sequence[str], size: int) -> dict[str, Any]:
    """The transformer's arguments in the first step of sampling these prompts, without running it."""
    with _first_call(pipe, stop=True) as seen, torch.no_grad():
        pipe(**models._arguments(pipe, [(p, 0) for p in prompts], 2, 1.0, " ", size), output_type="latent")
    return seen


def conditions(pipe: Pipe, prompts: Sequence[str], size: int) -> list[Text]:
    """Text embeddings as the pipeline itself makes them, without padding."""
    return _texts(pipe, first_call(pipe, prompts, size), len(prompts))


def _texts(pipe: Pipe, seen: Mapping[str, Any], count: int) -> list[Text]:
    inputs = inputs_of(models.family_of(pipe.transformer).name)
    mask = seen.get(inputs.mask) if inputs.mask else None
    real = [slice(None) if mask is None else mask[row].bool() for row in range(count)]
    return [{name: seen[name][row][real[row]].cpu() for name in inputs.text} for row in range(count)]
