"""Batches to train on: clean latents with their prompts, noised for flow matching, the same for the same (seed, step).

A cache of latents and text embeddings (encode.py fills it) is a folder of safetensors shards; `LatentSource` reads it. How a
family's transformer is called is one row of INPUTS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from . import models
from .records import BadInput, read_text

Text = dict[str, torch.Tensor]  # argument name -> (T, D), without padding


# --- how each family is called -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """The transformer's arguments: which takes the noisy latents, the text, its mask, the grid of image tokens."""

    latents: str = "hidden_states"
    text: tuple[str, ...] = ("encoder_hidden_states",)
    mask: str | None = "encoder_hidden_states_mask"
    shapes: str | None = "img_shapes"
    timestep: float = 1.0  # value of the timestep argument at pure noise


INPUTS: dict[str, Inputs] = {"qwenimage": Inputs()}


def inputs_of(family: str) -> Inputs:
    if family not in INPUTS:
        raise BadInput(f"family {family} has no row in data.INPUTS", "one of " + ", ".join(INPUTS), "add how its transformer is called")
    return INPUTS[family]


# --- a batch -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noising:
    """Noise levels: s = sigmoid(N(mean, std)), so 0 is the picture and 1 pure noise (logit-normal, SD3, arXiv 2403.03206)."""

    mean: float = 0.2
    std: float = 1.1


@dataclass
class Batch:
    """Clean latents x0, noise and s of each sample, and the rest of the transformer's arguments."""

    clean: torch.Tensor  # (B, N, C)
    noise: torch.Tensor  # (B, N, C)
    sigma: torch.Tensor  # (B,) in (0, 1)
    condition: dict[str, Any]
    inputs: Inputs

    @property
    def noisy(self) -> torch.Tensor:
        """x_s = (1 - s) x0 + s noise."""
        s = self.sigma.view(-1, *[1] * (self.clean.ndim - 1))
        return (1 - s) * self.clean + s * self.noise

    @property
    def velocity(self) -> torch.Tensor:
        """The flow-matching target dx/ds = noise - x0."""
        return self.noise - self.clean

    @property
    def text_mask(self) -> torch.Tensor | None:
        """(B, T), true at real text tokens; None where all are real."""
        return self.condition.get(self.inputs.mask) if self.inputs.mask else None

    def to(self, device: torch.device) -> Batch:
        moved = models.placed(self.condition, device, torch.float32)
        return Batch(self.clean.to(device), self.noise.to(device), self.sigma.to(device), moved, self.inputs)

    def arguments(self) -> dict[str, Any]:
        """What to call the transformer with."""
        return {self.inputs.latents: self.noisy, "timestep": self.sigma * self.inputs.timestep, **self.condition, "return_dict": False}

    def predict(self, transformer: nn.Module) -> torch.Tensor:
        """The transformer's velocity, float32: (B, N, C)."""
        return models.prediction(transformer(**self.arguments())).float()


class Source(Protocol):
    """Training samples without end. `batch` depends on its arguments only, so that a resumed run goes on bit for bit.

    Batches of one size number their samples through: steps 2k and 2k+1 of size B hold what step k of size 2B holds.
    """

    def batch(self, step: int, size: int, seed: int) -> Batch: ...


def draws(seed: int, number: int) -> np.random.Generator:
    """The random numbers of one sample of a run: its own counter-based stream, whatever batch it comes in."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, number], dtype=np.uint64)))


# --- a cache on disk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    latents: torch.Tensor  # (N, C), as the transformer takes them
    text: Text


def write_shard(path: Path, samples: Sequence[Sample], **notes: Any) -> None:
    """One shard, atomically. Latents in float16; text concatenated, with the lengths."""
    tensors = {}
    if samples:
        tensors = {"latents": torch.stack([s.latents for s in samples]).to(torch.float16),
                   "lengths": torch.tensor([len(next(iter(s.text.values()))) for s in samples])}
        tensors |= {f"text.{name}": torch.cat([s.text[name] for s in samples]).contiguous() for name in samples[0].text}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, draft, {"notes": json.dumps(notes)})
    os.replace(draft, path)


class Shard:
    """Reads single samples of a shard; the file stays mapped, nothing else is held."""

    def __init__(self, path: Path) -> None:
        try:
            self.file = safe_open(path, "pt")
            names = list(self.file.keys())
            self.lengths: list[int] = self.file.get_tensor("lengths").tolist() if names else []
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is no sound shard ({str(error)[:80]})", "a safetensors file of a latent cache",
                           "delete it and encode again") from None
        self.text = [name for name in names if name.startswith("text.")]
        self.ends = np.cumsum(self.lengths)
        self.notes: dict[str, Any] = json.loads((self.file.metadata() or {}).get("notes", "{}"))

    def __len__(self) -> int:
        return len(self.lengths)

    def sample(self, index: int) -> Sample:
        end = int(self.ends[index])
        rows = slice(end - self.lengths[index], end)
        text = {name.removeprefix("text."): self.file.get_slice(name)[rows] for name in self.text}
        return Sample(self.file.get_slice("latents")[index: index + 1][0], text)


class LatentSource:
    """Batches from a cache folder. `dropout` is the share of samples whose prompt is the empty one, for guidance."""

    def __init__(self, shards: Sequence[Shard], *, family: str, shape: Sequence[int], empty: Sample | None = None,
                 noising: Noising | None = None, dropout: float = 0.1) -> None:
        self.shards = shards
        self.starts = np.cumsum([0, *map(len, shards)])
        if not len(self):
            raise BadInput("the latent cache holds no sample", "at least one", "give prompts or pictures that can be read")
        self.inputs, self.shape, self.empty = inputs_of(family), tuple(shape), empty
        self.noising, self.dropout = noising or Noising(), dropout if empty else 0.0
        self._order = lru_cache(maxsize=2)(self._shuffled)

    @classmethod
    def from_folder(cls, folder: Path | str, *, noising: Noising | None = None, dropout: float = 0.1) -> LatentSource:
        """The cache that cache_prompts or cache_images wrote; an unfinished one is refused."""
        folder = Path(folder)
        if not (folder / "data.json").is_file():
            raise BadInput(f"{folder} has no data.json", "a finished latent cache", "encode prompts or pictures into it first")
        about = json.loads(read_text(folder / "data.json", "latent cache"))
        shards = [Shard(folder / name) for name in about["shards"]]
        return cls(shards, family=about["family"], shape=about["shape"], empty=Shard(folder / "empty.safetensors").sample(0),
                   noising=noising, dropout=dropout)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _shuffled(self, seed: int, epoch: int) -> np.ndarray:
        return draws(seed, 2**63 + epoch).permutation(len(self))  # the upper half of the numbers: no sample's own

    def sample(self, index: int) -> Sample:
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.shards[shard].sample(index - int(self.starts[shard]))

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """Samples step*size .. (step+1)*size - 1 of the shuffled, endless stream `seed`."""
        clean, noise, sigma, texts = [], [], [], []
        for number in range(step * size, (step + 1) * size):
            epoch, place = divmod(number, len(self))
            held, rng = self.sample(int(self._order(seed, epoch)[place])), draws(seed, number)
            clean.append(held.latents.float())
            noise.append(torch.from_numpy(rng.standard_normal(held.latents.shape, dtype=np.float32)))
            sigma.append(1 / (1 + np.exp(-rng.normal(self.noising.mean, self.noising.std))))
            texts.append(self.empty.text if self.empty and rng.random() < self.dropout else held.text)
        s = torch.tensor(sigma, dtype=torch.float32)
        return Batch(torch.stack(clean), torch.stack(noise), s, self.collate(texts), self.inputs)

    def collate(self, texts: Sequence[Text]) -> dict[str, Any]:
        """Texts padded to the longest; no mask where none is padded, as the pipelines do."""
        out: dict[str, Any] = {name: nn.utils.rnn.pad_sequence([t[name].float() for t in texts], batch_first=True)  # (B, T, D)
                               for name in self.inputs.text}
        lengths = torch.tensor([len(text[self.inputs.text[0]]) for text in texts])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]  # (B, T)
        if self.inputs.mask:
            out[self.inputs.mask] = None if mask.all() else mask
        if self.inputs.shapes:
            out[self.inputs.shapes] = [[self.shape]] * len(texts)
        return out
