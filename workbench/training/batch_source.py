"""Endless sources of training batches, read from a latent cache.

A batch depends on (seed, step) alone, whichever process asks for which part of it.
"""

from __future__ import annotations

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

from ..records import BadInput, jsonfile
from .batch import PLAIN, Batch, Condition, Drawing
from .cache import Sample, Shard, Text
from .model_inputs import has_two_branches, inputs_of
from .random_streams import batch_order, draws, guidance_scale, noise_level, sample_order


class Source(Protocol):
    """An endless source of training batches.

    `batch` depends on its arguments only, so that a resumed run goes on bit for bit. The parts of a
    batch, (0, n) to (n - 1, n), together hold what the whole holds. two_branches: whether batches
    can have an unconditional branch (Drawing.both_branches).
    """

    @property
    def two_branches(self) -> bool: ...

    def batch(self, step: int, size: int, seed: int, how: Drawing = PLAIN) -> Batch: ...


@dataclass
class Bucket:
    """Samples of one size."""

    shards: Sequence[Shard]
    shape: tuple[int, ...]  # the grid of image tokens (frames, rows, columns)
    shared: Text = field(default_factory=dict)  # position ids, the same for all samples

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *map(len, self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def sample(self, index: int) -> Sample:
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.shards[shard].sample(index - int(self.starts[shard]))


class LatentSource:
    """Batches from a latent cache.

    dropout: share of samples whose prompt is the empty one, which guidance needs. levels: s of the
    teacher's sampler. times: the timestep of each level over that of pure noise, where the sampler
    has numbers of its own for it. alphas: of a DDPM. guidance: the scale that the model takes as an input,
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
        times: Sequence[float] | None = None,
        alphas: Sequence[float] | None = None,
        guidance: float | None = None,
    ) -> None:
        self.buckets = [bucket for bucket in buckets if len(bucket)]
        if not self.buckets:
            raise BadInput(
                "a latent cache without samples",
                "at least one",
                "give prompts or pictures that can be read",
            )
        self.inputs = inputs_of(family)
        self.family = family
        self.empty = empty
        self.dropout = dropout if empty else 0.0
        self.levels = levels or (1.0,)
        self.times = times
        self.guidance = guidance
        self.folder: Path | None = None
        self.alphas = torch.tensor(alphas) if alphas else None
        self._sample_order = lru_cache(maxsize=4)(self._shuffled_samples)
        self._batch_order = lru_cache(maxsize=4)(self._shuffled_batches)

    @classmethod
    def from_folder(cls, folder: Path | str, *, dropout: float = 0.1) -> LatentSource:
        """Open a cache. Raises BadInput for one that is unfinished or lost samples."""
        folder = Path(folder)
        if not (folder / "data.json").is_file():
            raise BadInput(
                f"{folder} has no data.json",
                "a finished latent cache",
                "encode prompts or pictures into it first",
            )
        about = jsonfile.read_object(folder / "data.json", "latent cache")
        source = cls(
            [read_bucket(folder, row) for row in about["buckets"]],
            family=about["family"],
            empty=Shard(folder / "empty.safetensors").sample(0),
            dropout=dropout,
            levels=about["levels"],
            times=about.get("times"),
            alphas=about["alphas"],
            guidance=about["guidance"],
        )
        source.folder = folder
        return source

    def __len__(self) -> int:
        return sum(map(len, self.buckets))

    @property
    def two_branches(self) -> bool:
        """Whether the cache has the empty prompt, and the model an unconditional branch."""
        return self.empty is not None and has_two_branches(self.family)

    # --- which samples ----------------------------------------------------------------------------

    def _shuffled_samples(self, bucket: int, seed: int, epoch: int) -> np.ndarray:
        return sample_order(seed, epoch, bucket, len(self.buckets[bucket]))

    def _shuffled_batches(self, size: int, seed: int, epoch: int) -> list[tuple[int, int]]:
        """(bucket, number of a batch in it) of an epoch, shuffled.

        A bucket's last batch is filled up from its start.
        """
        batches: list[tuple[int, int]] = []
        for number, bucket in enumerate(self.buckets):
            batches += [(number, i) for i in range(math.ceil(len(bucket) / size))]
        return [batches[i] for i in batch_order(seed, epoch, len(batches))]

    def _places(self, step: int, size: int, seed: int) -> tuple[int, list[int]]:
        """The bucket of batch `step`, and the indices of its samples there."""
        if len(self.buckets) == 1:
            return 0, self._places_in_stream(step, size, seed)
        per_epoch = sum(math.ceil(len(bucket) / size) for bucket in self.buckets)
        epoch, turn = divmod(step, per_epoch)
        bucket, number = self._batch_order(size, seed, epoch)[turn]
        order = self._sample_order(bucket, seed, epoch)
        numbers = range(number * size, (number + 1) * size)
        return bucket, [int(order[n % len(order)]) for n in numbers]

    def _places_in_stream(self, step: int, size: int, seed: int) -> list[int]:
        """One bucket is an endless shuffled stream: batches 2k and 2k + 1 of size B are batch k of
        size 2B.
        """
        places = []
        for number in range(step * size, (step + 1) * size):
            epoch, turn = divmod(number, len(self))
            places.append(int(self._sample_order(0, seed, epoch)[turn]))
        return places

    # --- batches ----------------------------------------------------------------------------------

    def batch(self, step: int, size: int, seed: int, how: Drawing = PLAIN) -> Batch:
        """Batch `step` of the endless stream `seed`: `size` samples of one bucket, or this
        process's part of them.
        """
        rank, world = how.part
        bucket, places = self._places(step, size, seed)
        draft = _Draft()
        for i in range(size * rank // world, size * (rank + 1) // world):
            sample = self.buckets[bucket].sample(places[i])
            self._draw(draft, sample, draws(seed, step * size + i), how)
        return self._batch(draft, self.buckets[bucket], how.both_branches)

    def _draw(self, draft: _Draft, sample: Sample, rng: np.random.Generator, how: Drawing) -> None:
        """Add a sample. The order of the draws is part of the stream: resumed runs rely on it."""
        draft.clean.append(sample.latents.float())
        noise = rng.standard_normal(sample.latents.shape, dtype=np.float32)
        draft.noise.append(torch.from_numpy(noise))
        draft.sigma.append(noise_level(rng, how.timesteps, self.levels))
        text = sample.text
        if self.empty is not None and rng.random() < self.dropout and not how.both_branches:
            text = self.empty.text
        draft.texts.append(text)
        if how.guidance is not None:
            draft.guidance.append(guidance_scale(rng, how.guidance))

    def _batch(self, draft: _Draft, bucket: Bucket, both_branches: bool) -> Batch:
        guidance = torch.tensor(draft.guidance) if draft.guidance else None
        takes_scale = self.guidance is not None  # the model takes guidance as an input
        unconditional = None
        condition = self.collate(draft.texts, bucket, guidance if takes_scale else None)
        if both_branches or (guidance is not None and not takes_scale):
            unconditional = self._empty_condition(len(draft.texts), bucket)
        sigma = torch.tensor(draft.sigma, dtype=torch.float32)
        return Batch(
            torch.stack(draft.clean),
            torch.stack(draft.noise),
            sigma,
            condition,
            self.inputs,
            unconditional,
            guidance,
            self.alphas,
            self._times(sigma),
        )

    def _times(self, sigma: torch.Tensor) -> torch.Tensor | None:
        """Timesteps of noise levels, (B,): on the line through the sampler's own pairs."""
        if self.times is None:
            return None
        known = sorted(zip(self.levels, self.times, strict=True))
        levels, times = zip((0.0, 0.0), *known, (1.0, 1.0), strict=True)
        return torch.from_numpy(np.interp(sigma.numpy(), levels, times)).float()

    def _empty_condition(self, count: int, bucket: Bucket) -> Condition:
        if self.empty is None:
            raise BadInput(
                "a latent cache without the empty prompt",
                "a cache with it, for guided targets and for both branches",
                "encode again",
            )
        return self.collate([self.empty.text] * count, bucket)

    def collate(
        self, texts: Sequence[Text], bucket: Bucket, guidance: torch.Tensor | None = None
    ) -> Condition:
        """The transformer's other arguments, texts padded to the longest.

        No mask where nothing is padded, as the pipelines do, unless the family always has one. A
        text that no sample has (HunyuanImage's quoted words) is None. guidance: (B,), else the
        model's own.
        """
        inputs = self.inputs
        if inputs.listed:
            return {name: [text[name].float() for text in texts] for name in inputs.text}
        out: Condition = {}
        for name in inputs.text:
            values = [text[name].float() for text in texts]
            padded = nn.utils.rnn.pad_sequence(values, batch_first=True)  # (B, T, D)
            out[name] = padded if padded.shape[1] else None
        for name in inputs.pooled:
            out[name] = stacked([text[name] for text in texts])  # (B, D), or classes (B,)
        for name, ids in bucket.shared.items():
            out[name] = ids[None].expand(len(texts), *ids.shape) if inputs.expand else ids
        for name, mask in inputs.masks.items():
            lengths = [len(text[name]) for text in texts]
            out[mask] = None
            if out[name] is not None:
                out[mask] = padding_mask(lengths, always=inputs.mask_always)
        if inputs.shapes:
            out[inputs.shapes] = [[bucket.shape]] * len(texts)
        if inputs.guidance and self.guidance is not None:
            out[inputs.guidance] = torch.full((len(texts),), self.guidance)
            if guidance is not None:
                out[inputs.guidance] = guidance * inputs.guidance_unit
        return out


@dataclass
class _Draft:
    """The samples of a batch so far."""

    clean: list[torch.Tensor] = field(default_factory=list)
    noise: list[torch.Tensor] = field(default_factory=list)
    sigma: list[float] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    guidance: list[float] = field(default_factory=list)


def stacked(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """One tensor of all samples' values; numbers with a point in float32, class numbers as they
    are.
    """
    whole = torch.stack(list(values))
    return whole.float() if whole.is_floating_point() else whole


def padding_mask(lengths: Sequence[int], always: bool = False) -> torch.Tensor | None:
    """(B, T), true at real tokens; None where all are, unless it is wanted always."""
    each = torch.tensor(lengths)
    mask = torch.arange(int(each.max()))[None] < each[:, None]
    return None if bool(mask.all()) and not always else mask


def read_bucket(folder: Path, row: dict[str, Any]) -> Bucket:
    """A bucket of data.json. Raises BadInput where samples are missing."""
    shards = [Shard(folder / name) for name in row["shards"]]
    shared = load_file(folder / row["shared"]) if row.get("shared") else {}
    bucket = Bucket(shards, tuple(row["shape"]), shared)
    if len(bucket) != row["samples"]:
        raise BadInput(
            f"{folder} has {len(bucket)} samples of shape {row['shape']}",
            f"{row['samples']}, by its data.json",
            "delete it and encode again",
        )
    return bucket
