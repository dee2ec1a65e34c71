"""Sources of training samples without end: the same for the same (seed, step), whatever process
asks for which part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from ..records import BadInput, Timesteps, read_text
from .cache import Sample, Shard, Text
from .inputs import PLAIN, Batch, Drawing, inputs_of


class Source(Protocol):
    """Training samples without end. `batch` depends on its arguments only, so that a resumed run
    goes on bit for bit.

    The parts of a batch, (0, n) to (n - 1, n), hold what the whole holds, so that n processes see
    what one would.
    """

    def batch(self, step: int, size: int, seed: int, how: Drawing = PLAIN) -> Batch: ...


def draws(seed: int, number: int) -> np.random.Generator:
    """The random numbers of one sample of a run: its own counter-based stream, whatever batch it
    comes in.
    """
    return np.random.Generator(
        np.random.Philox(key=np.array([seed % 2**64, number], dtype=np.uint64))
    )


def noise_level(rng: np.random.Generator, how: Timesteps, levels: Sequence[float]) -> float:
    """One s in (0, 1); `levels` are those of the teacher's sampler."""
    if how.kind == "trajectory":
        return float(levels[int(rng.integers(len(levels)))])
    if how.kind == "logit-normal":
        s = 1 / (1 + np.exp(-rng.normal(how.mean, how.std)))
    else:
        s = rng.random()
        if how.kind == "mode":
            s = 1 - s - how.scale * (math.cos(math.pi * s / 2) ** 2 - 1 + s)
    return float(how.shift * s / (1 + (how.shift - 1) * s))


@dataclass
class Bucket:
    """Samples of one size."""

    shards: Sequence[Shard]
    shape: tuple[int, ...]  # the grid of image tokens (frames, rows, columns)
    shared: Text = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *map(len, self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def sample(self, index: int) -> Sample:
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.shards[shard].sample(index - int(self.starts[shard]))


class LatentSource:
    """Batches from a cache. `dropout` is the share of samples whose prompt is the empty one, for
    guidance.

    levels: s of the teacher's sampler. alphas: of a DDPM. guidance: the scale that the model takes
    unless a stage says another.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        *,
        family: str,
        empty: Sample | None = None,
        dropout: float = 0.1,
        levels: Sequence[float] = (),
        alphas: Sequence[float] | None = None,
        guidance: float | None = None,
    ) -> None:
        self.buckets = [bucket for bucket in buckets if len(bucket)]
        if not self.buckets:
            raise BadInput(
                "the latent cache holds no sample",
                "at least one",
                "give prompts or pictures that can be read",
            )
        self.inputs, self.empty, self.dropout = inputs_of(family), empty, dropout if empty else 0.0
        self.levels, self.guidance = levels, guidance
        self.folder: Path | None = None
        self.alphas = torch.tensor(alphas) if alphas else None
        self._order = lru_cache(maxsize=4)(self._shuffled)
        self._plan = lru_cache(maxsize=4)(self._batches)

    @classmethod
    def from_folder(cls, folder: Path | str, *, dropout: float = 0.1) -> LatentSource:
        """The cache that cache_prompts or cache_images wrote; an unfinished one, or one that lost
        samples, is refused.
        """
        folder = Path(folder)
        if not (folder / "data.json").is_file():
            raise BadInput(
                f"{folder} has no data.json",
                "a finished latent cache",
                "encode prompts or pictures into it first",
            )
        about = json.loads(read_text(folder / "data.json", "latent cache"))
        buckets = [_bucket(folder, row) for row in about["buckets"]]
        made = cls(
            buckets,
            family=about["family"],
            empty=Shard(folder / "empty.safetensors").sample(0),
            dropout=dropout,
            levels=about["levels"],
            alphas=about["alphas"],
            guidance=about["guidance"],
        )
        made.folder = folder
        return made

    def __len__(self) -> int:
        return sum(map(len, self.buckets))

    def _shuffled(self, bucket: int, seed: int, epoch: int) -> np.ndarray:
        # the upper half of the numbers: no sample's own
        return draws(seed, 2**63 + epoch + (bucket << 40)).permutation(len(self.buckets[bucket]))

    def _batches(self, size: int, seed: int, epoch: int) -> list[tuple[int, int]]:
        """(bucket, its how-many-th batch) of an epoch, shuffled. A bucket's last batch is filled up
        from its start.
        """
        pairs = [
            (b, i)
            for b, bucket in enumerate(self.buckets)
            for i in range(math.ceil(len(bucket) / size))
        ]
        return [pairs[i] for i in draws(seed, 2**63 + 2**62 + epoch).permutation(len(pairs))]

    def _places(self, step: int, size: int, seed: int) -> tuple[int, list[int]]:
        """Bucket, and indices of its samples. One bucket is an endless shuffled stream: 2k and 2k +
        1 of size B are k of size 2B.
        """
        if len(self.buckets) == 1:
            numbers = [
                divmod(number, len(self)) for number in range(step * size, (step + 1) * size)
            ]
            return 0, [int(self._order(0, seed, epoch)[place]) for epoch, place in numbers]
        held = sum(math.ceil(len(bucket) / size) for bucket in self.buckets)
        epoch, turn = divmod(step, held)
        bucket, number = self._plan(size, seed, epoch)[turn]
        order = self._order(bucket, seed, epoch)
        return bucket, [
            int(order[place % len(order)]) for place in range(number * size, (number + 1) * size)
        ]

    def batch(self, step: int, size: int, seed: int, how: Drawing = PLAIN) -> Batch:
        """Batch `step` of the endless stream `seed`: `size` samples of one bucket, or this
        process's part of them.
        """
        rank, world = how.part
        number, places = self._places(step, size, seed)
        clean, noise, sigma, texts, scales = [], [], [], [], []
        for i in range(size * rank // world, size * (rank + 1) // world):
            held, rng = self.buckets[number].sample(places[i]), draws(seed, step * size + i)
            clean.append(held.latents.float())
            noise.append(
                torch.from_numpy(rng.standard_normal(held.latents.shape, dtype=np.float32))
            )
            sigma.append(noise_level(rng, how.timesteps, self.levels or (1.0,)))
            texts.append(
                self.empty.text if self.empty and rng.random() < self.dropout else held.text
            )
            if how.guidance is not None:
                low, high = (
                    how.guidance
                    if isinstance(how.guidance, tuple)
                    else (how.guidance, how.guidance)
                )
                scales.append(low + (high - low) * rng.random())
        return self._made(clean, noise, sigma, texts, scales, self.buckets[number])

    def _made(
        self,
        clean: list[torch.Tensor],
        noise: list[torch.Tensor],
        sigma: list[float],
        texts: list[Text],
        scales: list[float],
        bucket: Bucket,
    ) -> Batch:
        s, guidance = (
            torch.tensor(sigma, dtype=torch.float32),
            torch.tensor(scales) if scales else None,
        )
        embeds = self.guidance is not None
        condition = self.collate(texts, bucket, guidance if embeds else None)
        plain = None
        if guidance is not None and not embeds:
            if self.empty is None:
                raise BadInput("a guided target", "a cache with the empty prompt", "encode again")
            plain = self.collate([self.empty.text] * len(texts), bucket)
        return Batch(
            torch.stack(clean),
            torch.stack(noise),
            s,
            condition,
            self.inputs,
            plain,
            guidance,
            self.alphas,
        )

    def collate(
        self, texts: Sequence[Text], bucket: Bucket, guidance: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """Texts padded to the longest; no mask where none is padded, as the pipelines do."""
        inputs, count = self.inputs, len(texts)
        if inputs.listed:
            return {name: [t[name].float() for t in texts] for name in inputs.text}
        # (B, T, D)
        out: dict[str, Any] = {
            name: nn.utils.rnn.pad_sequence([t[name].float() for t in texts], batch_first=True)
            for name in inputs.text
        }
        out |= {name: torch.stack([t[name].float() for t in texts]) for name in inputs.pooled}
        out |= {
            name: ids[None].expand(count, *ids.shape) if inputs.expand else ids
            for name, ids in bucket.shared.items()
        }
        lengths = torch.tensor([len(text[inputs.text[0]]) for text in texts])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]  # (B, T)
        if inputs.mask:
            out[inputs.mask] = None if mask.all() else mask
        if inputs.shapes:
            out[inputs.shapes] = [[bucket.shape]] * count
        if inputs.guidance and self.guidance is not None:
            out[inputs.guidance] = (
                guidance if guidance is not None else torch.full((count,), self.guidance)
            )
        return out


def _bucket(folder: Path, row: dict[str, Any]) -> Bucket:
    shards = [Shard(folder / name) for name in row["shards"]]
    bucket = Bucket(
        shards, tuple(row["shape"]), load_file(folder / row["shared"]) if row.get("shared") else {}
    )
    if len(bucket) != row["samples"]:
        raise BadInput(
            f"{folder} holds {len(bucket)} samples of shape {row['shape']}",
            f"{row['samples']}, by its data.json",
            "delete it and encode again",
        )
    return bucket
