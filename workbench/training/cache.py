"""A cache of latents and text embeddings on disk: a folder of safetensors shards, read sample by
sample.

data.json, written last, makes a cache whole. Its `buckets` hold what one size of pictures has:
shards, grid, position ids.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..records import BadInput

Text = dict[str, torch.Tensor]  # argument name -> (T, D) without padding, or (D,)


@dataclass(frozen=True)
class Sample:
    latents: torch.Tensor  # (N, C) or (C, H, W), as the transformer takes them
    text: Text


def write_shard(path: Path, samples: Sequence[Sample], **notes: Any) -> None:
    """One shard, atomically. Latents in float16; text concatenated, with the lengths; pooled
    vectors stacked.
    """
    tensors = {}
    if samples:
        first = samples[0].text
        lengths = [next(len(value) for value in s.text.values() if value.ndim > 1) for s in samples]
        tensors = {
            "latents": torch.stack([s.latents for s in samples]).to(torch.float16),
            "lengths": torch.tensor(lengths),
        }
        tensors |= {
            f"text.{n}": torch.cat([s.text[n] for s in samples]).contiguous()
            for n, value in first.items()
            if value.ndim > 1
        }
        tensors |= {
            f"pooled.{n}": torch.stack([s.text[n] for s in samples])
            for n, value in first.items()
            if value.ndim == 1
        }
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
            raise BadInput(
                f"{path} is no sound shard ({str(error)[:80]})",
                "a safetensors file of a latent cache",
                "delete it and encode again",
            ) from None
        self.text = [name for name in names if name.startswith("text.")]
        self.pooled = [name for name in names if name.startswith("pooled.")]
        self.ends = np.cumsum(self.lengths)
        self.notes: dict[str, Any] = json.loads((self.file.metadata() or {}).get("notes", "{}"))

    def __len__(self) -> int:
        return len(self.lengths)

    def sample(self, index: int) -> Sample:
        end = int(self.ends[index])
        rows = slice(end - self.lengths[index], end)
        text = {name.removeprefix("text."): self.file.get_slice(name)[rows] for name in self.text}
        text |= {
            name.removeprefix("pooled."): self.file.get_slice(name)[index : index + 1][0]
            for name in self.pooled
        }
        return Sample(self.file.get_slice("latents")[index : index + 1][0], text)
