"""Scenes as training data: latents, caption tokens and cover maps in shards, made once and read
whole into memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ...models.precision import bfloat16_autocast
from ..render import cover_map, render
from ..scenes import CATEGORIES, Scene, caption, sample_scene
from .models import TEXT_TOKENS, Model, shared_tokenizer, tokenize
from .vae import encode, flat_copy, to_tensor

Tensor = torch.Tensor
SHARD = 500  # scenes in a file
MIX = {"single": 0.14, "two": 0.18, "position": 0.28, "count": 0.18, "text": 0.22}


def pack(latents: Tensor) -> Tensor:
    """(B, z, h, w) to tokens (B, h w / 4, 4 z), as the pipeline packs them."""
    b, z, h, w = latents.shape
    patches = latents.view(b, z, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(b, h * w // 4, 4 * z)


@torch.no_grad()
def encode_scenes(twin: Model, scenes: list[Scene], device: str = "cpu") -> Tensor:
    """Posterior means of the rendered scenes, float32 (B, z, 16, 16), not normalised."""
    images = to_tensor(np.stack([render(s) for s in scenes]), device).contiguous(
        memory_format=torch.channels_last
    )
    with bfloat16_autocast(device.split(":")[0]):
        return encode(twin, images)[0].float().cpu()


def set_statistics(vae: Model, n_per_category: int = 80) -> None:
    """Mean and spread of each latent channel over training scenes, into the VAE's config, where the
    pipeline reads them.
    """
    twin = flat_copy(vae)
    parts = []
    for category in CATEGORIES:
        scenes = [sample_scene(category, i) for i in range(n_per_category)]
        parts.append(encode_scenes(twin, scenes))
    latents = torch.cat(parts)  # (5 n, z, h, w)
    vae.register_to_config(
        latents_mean=latents.mean((0, 2, 3)).tolist(), latents_std=latents.std((0, 2, 3)).tolist()
    )


def pad_tokens(captions: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids int16 (B, 16), padded on the right, and lengths uint8 (B,)."""
    rows = tokenize(captions)
    fill = shared_tokenizer().pad_token_id
    ids = torch.tensor([row + [fill] * (TEXT_TOKENS - len(row)) for row in rows], dtype=torch.int16)
    return ids, torch.tensor([len(row) for row in rows], dtype=torch.uint8)


def shard_tensors(
    vae: Model, twin: Model, scenes: list[Scene], device: str = "cpu"
) -> dict[str, Tensor]:
    """What a shard file holds: latents bfloat16 (n, 64, 32) normalised, ids, lengths, cover uint8
    (n, 64, classes).
    """
    latents = torch.cat(
        [encode_scenes(twin, scenes[i : i + 50], device) for i in range(0, len(scenes), 50)]
    )
    mean = torch.tensor(vae.config["latents_mean"]).view(1, -1, 1, 1)
    std = torch.tensor(vae.config["latents_std"]).view(1, -1, 1, 1)
    ids, lengths = pad_tokens([caption(s) for s in scenes])
    cover = torch.from_numpy(np.stack([cover_map(s) for s in scenes]))
    return {
        "latents": pack((latents - mean) / std).bfloat16().contiguous(),
        "ids": ids,
        "lengths": lengths,
        "cover": cover,
    }


def shard_plan(total: int) -> Iterator[tuple[str, int]]:
    """(category, index) of the shards that make up `total` scenes, all categories growing together
    in the mix's shares.
    """
    counts = dict.fromkeys(CATEGORIES, 0)
    for _ in range(-(-total // SHARD)):
        category = min(counts, key=lambda c: (counts[c] + 1) / MIX[c])
        yield category, counts[category]
        counts[category] += 1


def make_latents(
    vae: Model, folder: Path, total: int, rank: int = 0, world: int = 1, device: str = "cpu"
) -> Iterator[Path]:
    """Write the shards of `total` scenes that this process is to make and that are missing; yields
    each path.
    """
    twin = flat_copy(vae).to(device, memory_format=torch.channels_last)
    folder.mkdir(parents=True, exist_ok=True)
    for category, index in list(shard_plan(total))[rank::world]:
        path = folder / f"{category}-{index:04d}.safetensors"
        if not path.exists():
            scenes = [sample_scene(category, index * SHARD + i) for i in range(SHARD)]
            draft = path.with_suffix(f".{os.getpid()}")
            save_file(shard_tensors(vae, twin, scenes, device), draft)
            draft.rename(path)
            yield path


@dataclass
class Batch:
    """Latents (B, 64, 32), token ids (B, 16), lengths (B,), cover (B, 64, classes) in [0, 1]."""

    latents: Tensor
    ids: Tensor
    lengths: Tensor
    cover: Tensor


class Shards:
    """All shards of a folder in memory, drawn from by category in the proportions of `mix`."""

    def __init__(
        self, folder: Path, mix: dict[str, float] | None = None, device: str = "cpu"
    ) -> None:
        self.folder = folder
        self.device = device
        self.mix = mix or MIX
        self.read: set[Path] = set()
        self.data: dict[str, dict[str, Tensor]] = {}
        self.refresh()

    def refresh(self) -> int:
        """Read shards that have appeared since; returns the number of scenes."""
        fresh = set(self.folder.glob("*.safetensors")) - self.read
        self.read |= fresh
        parts: dict[str, list[dict[str, Tensor]]] = {
            category: [tensors] for category, tensors in self.data.items()
        }
        for path in sorted(fresh):
            category = path.name.partition("-")[0]
            parts.setdefault(category, []).append(load_file(path, device=self.device))
        self.data = {category: concatenated(tensors) for category, tensors in parts.items()}
        return sum(len(tensors["ids"]) for tensors in self.data.values())

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """n scenes at random, category by category: their numbers by the mix, then any scene of
        each.
        """
        present = [category for category in CATEGORIES if category in self.data]
        shares = torch.tensor([self.mix[category] for category in present])
        choice = torch.multinomial(shares, n, replacement=True, generator=generator)
        counts = choice.bincount(minlength=len(present)).tolist()
        rows: list[dict[str, Tensor]] = []
        for category, count in zip(present, counts, strict=True):
            tensors = self.data[category]
            index = torch.randint(len(tensors["ids"]), (count,), generator=generator)
            on_device = index.to(self.device)
            rows.append({name: tensor[on_device] for name, tensor in tensors.items()})
        whole = concatenated(rows)
        return Batch(
            whole["latents"].float(),
            whole["ids"].long(),
            whole["lengths"].long(),
            whole["cover"].float() / 255,
        )


def concatenated(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of several dicts of the same names, each joined along the first dimension."""
    joined = {}
    for name in parts[0]:
        joined[name] = torch.cat([part[name] for part in parts])
    return joined


def caption_dropper() -> Callable[[Batch, Tensor], None]:
    """A function that replaces the captions of chosen rows by the empty prompt, in place."""
    ids, lengths = pad_tokens([" "])

    def drop(batch: Batch, rows: Tensor) -> None:
        batch.ids[rows] = ids.long().to(batch.ids.device)
        batch.lengths[rows] = lengths.long().to(batch.ids.device)

    return drop
