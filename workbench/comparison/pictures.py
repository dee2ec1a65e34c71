"""The pictures of a comparison: sampled once, kept, and sampled again only if something changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from .. import models
from ..models import Pipeline, checkpoints
from ..models.sampling_defaults import NO_PROMPT
from ..records import BadInput, draft_of, jsonfile, write_atomic
from ..records.picture_size import Size


@dataclass(frozen=True)
class Settings:
    """How the pictures of all models are sampled.

    guidance: unless a model has its own. size: a square's side in pixels, or "WIDTHxHEIGHT". dtype: of the weights; None: float32 on a CPU, else as stored. batch:
    pictures at once; it changes them by rounding.
    """

    seeds: tuple[int, ...]
    steps: int
    guidance: float
    size: Size
    dtype: str | None = None
    device: str = "cpu"
    batch: int = 8
    sampled_as: str = ""  # where steps, guidance and size come from, in words
    negative: str = NO_PROMPT  # the negative prompt


WHOLE = (0, 1)
LATENTS = ".latents.npy"


def pictures_of(
    pipe: Pipeline,
    weights: Path,
    prompts: Sequence[str],
    settings: Settings,
    folder: Path,
    part: tuple[int, int] = WHOLE,
    latents: bool = False,
) -> Iterator[Path]:
    """Write one PNG per prompt and seed into `folder`: prompt 0 with every seed, then prompt 1.
    latents: and beside each the latents that it was decoded from (`latents_of`). part: (number,
    count), every count-th batch from that number on; the parts together are the whole, bit for bit.

    Pictures that are there are kept if settings, prompts and weights are the same. Whole batches
    are kept or sampled again: rounding depends on the batch, and a resumed run must not differ.
    """
    forget_others(folder, settings_key(weights, prompts, settings))
    pairs = list(product(prompts, settings.seeds))
    number_of_part, parts = part
    for start in range(number_of_part * settings.batch, len(pairs), parts * settings.batch):
        group = pairs[start : start + settings.batch]
        files = [folder / f"{start + number:04d}.png" for number in range(len(group))]
        files_of_batch = [*files, *[latents_of(file) for file in files if latents]]
        if not all(file.is_file() for file in files_of_batch):
            write_batch(pipe, group, settings, files, latents)
        yield from files


def write_batch(
    pipe: Pipeline,
    group: Sequence[tuple[str, int]],
    settings: Settings,
    files: Sequence[Path],
    latents: bool,
) -> None:
    """Sample one batch and write its pictures, with their latents where they are asked for."""
    if latents:
        with models.final_latents(pipe) as final:
            images = sample(pipe, group, settings)
        assert final.tensor is not None, "the scheduler took no step"
        for file, tensor in zip(files, final.tensor.float().cpu(), strict=True):
            save_latents(tensor.numpy(), file)
    else:
        images = sample(pipe, group, settings)
    for file, image in zip(files, images, strict=True):
        save_png(image, file)


def sample(
    pipe: Pipeline, group: Sequence[tuple[str, int]], settings: Settings
) -> list[Image.Image]:
    """One batch of pictures, of (prompt, seed) pairs."""
    batches = models.generate(
        pipe,
        [prompt for prompt, _ in group],
        seeds=[seed for _, seed in group],
        steps=settings.steps,
        guidance=settings.guidance,
        size=settings.size,
        negative=settings.negative,
        batch=len(group),
    )
    return next(batches)


def settings_key(weights: Path, prompts: Sequence[str], settings: Settings) -> str:
    """JSON of everything that a picture depends on."""
    fingerprint = checkpoints.fingerprint(models.transformer_folder(weights))
    how = asdict(settings)
    del how["sampled_as"]  # words do not change a picture
    if settings.negative == NO_PROMPT:
        del how["negative"]  # pictures of older versions stay
    data = {**how, "prompts": list(prompts), "weights": fingerprint}
    return json.dumps(data, sort_keys=True)


def forget_others(folder: Path, key: str) -> None:
    """Delete pictures that were made with another key."""
    note = folder / "settings.json"
    digest = hashlib.sha256(key.encode()).hexdigest()
    with suppress(BadInput):  # none, or a damaged one: whose pictures these are is not known
        if jsonfile.read_object(note, "settings").get("digest") == digest:
            return
    for pattern in ("*.png", f"*{LATENTS}"):
        for stale in folder.glob(pattern):
            stale.unlink()
    write_atomic(note, json.dumps({"digest": digest, **jsonfile.parse(key)}) + "\n")


def save_png(image: Image.Image, file: Path) -> None:
    """Write a picture whole or not at all."""
    with draft_of(file) as draft:
        image.save(draft, "PNG")


def latents_of(file: Path) -> Path:
    """Where the latents of a picture lie."""
    return file.with_suffix(LATENTS)


def save_latents(latents: np.ndarray, file: Path) -> None:
    """Write the latents of a picture, float32, whole or not at all."""
    with draft_of(latents_of(file)) as draft, open(draft, "wb") as target:
        np.save(target, latents, allow_pickle=False)


def load_latents(files: Sequence[Path]) -> list[np.ndarray]:
    """The latents of pictures, float32, in the pipeline's own shape."""
    return [np.load(latents_of(file), allow_pickle=False) for file in files]


def load_pngs(files: Sequence[Path]) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in files]
