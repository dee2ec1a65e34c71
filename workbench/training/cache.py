"""A cache of latents and text embeddings on disk: safetensors shards, read sample by sample.

A cache is a folder. Its data.json is written last and makes it whole: `buckets` has, for each size
of pictures, the shards, the grid of image tokens and the file of position ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..records import BadInput, draft_of, jsonfile

Text = dict[str, torch.Tensor]  # argument name -> (T, D) without padding, or pooled (D,)


@dataclass(frozen=True)
class Sample:
    """One picture's latents and its caption's embeddings."""

    latents: torch.Tensor  # (N, C) or (C, H, W), as the transformer takes them
    text: Text

    @property
    def text_length(self) -> int:
        """Real tokens of the first text; 0 where the condition is not text."""
        return next((len(value) for value in self.text.values() if value.ndim > 1), 0)


def write_shard(path: Path, samples: Sequence[Sample], **notes: Any) -> None:
    """Write one shard, atomically; `notes` are JSON and can be read without the tensors.

    Latents in float16; token embeddings one after the other, with their lengths (of further texts
    where they differ from the first one's); pooled vectors stacked. No samples make an empty shard.
    """
    tensors: dict[str, torch.Tensor] = {}
    if samples:
        tensors["latents"] = torch.stack([s.latents for s in samples]).to(torch.float16)
        tensors["lengths"] = torch.tensor([s.text_length for s in samples])
        for name, value in samples[0].text.items():
            values = [s.text[name] for s in samples]
            if value.ndim > 1:
                tensors[f"text.{name}"] = torch.cat(values).contiguous()
                lengths = torch.tensor([len(value) for value in values])
                if not torch.equal(lengths, tensors["lengths"]):
                    tensors[f"lengths.{name}"] = lengths
            else:
                tensors[f"pooled.{name}"] = torch.stack(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(path) as draft:
        save_file(tensors, draft, {"notes": json.dumps(notes)})


class Shard:
    """Reads single samples of a shard; the file stays mapped and nothing else is in memory.

    Raises BadInput for a file that is damaged or not a shard.
    """

    def __init__(self, path: Path) -> None:
        self.lengths: list[int] = []
        try:
            self.file = safe_open(path, "pt")
            names = list(self.file.keys())
            if names:
                self.lengths = self.file.get_tensor("lengths").tolist()
            notes = jsonfile.parse((self.file.metadata() or {}).get("notes", "{}"))
        except (SafetensorError, OSError, jsonfile.JSONError) as error:
            raise BadInput(
                f"shard {path} is damaged ({str(error)[:80]})",
                "a safetensors file of a latent cache",
                "delete it and encode again",
            ) from None
        self.text = [name for name in names if name.startswith("text.")]
        self.pooled = [name for name in names if name.startswith("pooled.")]
        self.own_lengths: dict[str, list[int]] = {}
        for name in self.text:
            own = name.replace("text.", "lengths.", 1)
            self.own_lengths[name] = self.lengths
            if own in names:
                self.own_lengths[name] = self.file.get_tensor(own).tolist()
        self.ends = {name: np.cumsum(lengths) for name, lengths in self.own_lengths.items()}
        self.notes: dict[str, Any] = notes

    def __len__(self) -> int:
        return len(self.lengths)

    def sample(self, index: int) -> Sample:
        """One sample, read from the disk."""
        text = {}
        for name in self.text:
            end = int(self.ends[name][index])
            tokens = slice(end - self.own_lengths[name][index], end)
            text[name.removeprefix("text.")] = self.file.get_slice(name)[tokens]
        for name in self.pooled:
            text[name.removeprefix("pooled.")] = self._row(name, index)
        return Sample(self._row("latents", index), text)

    def _row(self, name: str, index: int) -> torch.Tensor:
        row: torch.Tensor = self.file.get_slice(name)[index : index + 1][0]
        return row
