"""Training the demo's transformer and text encoder: rectified flow on stored latents, with an
auxiliary target.

The auxiliary head reads the image tokens after an early block and predicts what covers each token
(shape, colour, letter, background): the idea of REPA (arXiv 2410.06940) with the exact truth in
place of another network's features.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from .fast import text_forward, transformer_forward
from .latents import Batch, Shards, caption_dropper
from .models import Model
from .optim import Muon, rank_and_world

Tensor = torch.Tensor


@dataclass(frozen=True)
class Settings:
    """How to train. `batch` counts one process; progress runs from 0 to 1 over a run."""

    batch: int = 64
    lr_matrix: float = 7e-3
    lr_rest: float = 3e-3
    warmup: int = 60  # steps
    decay_from: float = 0.4  # progress at which the linear decay begins
    ema: float = 0.998
    cover_weight: float = 0.1
    cover_block: int = 3
    cover_until: float = 0.7  # progress at which the auxiliary weight reaches 0
    drop_caption: float = 0.1
    sigma_mean: float = 0.3  # logit-normal
    sigma_spread: float = 1.1
    train_text: bool = True
    compiled: bool = True
    seed: int = 0


def sample_sigmas(n: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """Noise levels (n,), logit-normal, one from each n-th of the distribution, so that batches are
    alike.
    """
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    z = math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-0.9999, 0.9999))
    return torch.sigmoid(settings.sigma_mean + settings.sigma_spread * z)


class Trainer:
    """Models, optimizer and random state of one process. `step` trains on one batch; `save` and
    `load` are exact.
    """

    def __init__(
        self,
        transformer: Model,
        text_encoder: Model,
        settings: Settings,
        cover_classes: int,
        device: str = "cpu",
    ) -> None:
        rank, _ = rank_and_world()
        self.settings = settings
        self.device = device
        self.transformer = transformer.to(device, torch.bfloat16)
        self.text_encoder = text_encoder.to(device, torch.bfloat16)
        self.head = nn.Linear(transformer.inner_dim, cover_classes).to(device)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, -3.0)
        self.head.to(torch.bfloat16)
        self.optimizer = Muon(self._named(), adam_names=("embed_tokens", "head."), ema=settings.ema)
        self.generator = torch.Generator().manual_seed(settings.seed * 1000 + rank)
        self.drop_captions = caption_dropper()
        self.step_count = 0
        self.samples = 0

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters that learn; the last block's text output is unreachable and stays as it is."""
        last = f"transformer_blocks.{len(self.transformer.transformer_blocks) - 1}."
        dead = tuple(last + part for part in ("attn.to_add_out", "txt_mlp"))
        for name, p in self.transformer.named_parameters():
            if not name.startswith(dead):
                yield f"transformer.{name}", p
        if self.settings.train_text:
            for name, p in self.text_encoder.named_parameters():
                if "language_model" in name:
                    yield f"text_encoder.{name}", p
        for name, p in self.head.named_parameters():
            yield f"head.{name}", p

    def _noise(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, the sigma that the model is given, and the velocity to predict."""
        n = len(batch.latents)
        sigma = sample_sigmas(n, self.settings, self.generator).to(self.device)
        noise = torch.randn(batch.latents.shape, generator=self.generator).to(self.device)
        # bf16 pipelines round it: every other sample learns with the rounded one
        even = torch.arange(n, device=self.device) % 2 == 0
        given = torch.where(even, sigma, sigma.bfloat16().float())
        mix = given[:, None, None]
        return (1 - mix) * batch.latents + mix * noise, given, noise - batch.latents

    def loss(self, batch: Batch, cover_weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """Total, velocity and cover loss of a batch; drops some captions, in place."""
        rows = torch.rand(len(batch.ids), generator=self.generator) < self.settings.drop_caption
        self.drop_captions(batch, rows)
        noisy, sigma, velocity = self._noise(batch)
        with torch.set_grad_enabled(self.settings.train_text):
            text = text_forward(self.text_encoder, batch.ids)
        tap = -1
        if cover_weight:
            tap = self.settings.cover_block
        predicted, tapped = transformer_forward(
            self.transformer, noisy, sigma, text, batch.lengths, tap, self.settings.compiled
        )
        main = F.mse_loss(predicted.float(), velocity)
        if tapped is None:
            return main, main, torch.zeros(())
        logits = self.head(F.layer_norm(tapped, tapped.shape[-1:])).float()
        cover = (
            F.binary_cross_entropy_with_logits(logits, batch.cover, reduction="none").sum(-1).mean()
        )
        return main + cover_weight * cover, main, cover

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """One update at this progress of the run; returns numbers to log."""
        s = self.settings
        fade = 0.0
        if s.cover_until:
            fade = max(0.0, 1 - progress / s.cover_until)
        warmup = min(1, (self.step_count + 1) / s.warmup)
        rate = warmup * min(1, max((1 - progress) / (1 - s.decay_from), 0.01))
        total, main, cover = self.loss(batch, s.cover_weight * fade)
        for _, p in self.optimizer.named:
            p.grad = None
        total.backward()
        self.optimizer.step(s.lr_matrix * rate, s.lr_rest * rate)
        self.step_count += 1
        self.samples += len(batch.ids) * rank_and_world()[1]
        return {
            "step": self.step_count,
            "samples": self.samples,
            "loss": main.item(),
            "cover": cover.item(),
            "rate": rate,
        }

    def averaged(self) -> dict[str, dict[str, Tensor]]:
        """The averaged weights, float32, as state dicts of "transformer", "text_encoder" and
        "head"; call on every process.
        """
        flat = self.optimizer.gather(self.optimizer.average)
        result = {
            "transformer": float_state(self.transformer),
            "text_encoder": float_state(self.text_encoder),
            "head": float_state(self.head),
        }
        for name, value in flat.items():
            part, key = name.split(".", 1)
            result[part][key] = value
        if "lm_head.weight" in result["text_encoder"]:  # tied
            result["text_encoder"]["lm_head.weight"] = result["text_encoder"][
                "model.language_model.embed_tokens.weight"
            ]
        return result

    def save(self, folder: Path, extra: dict[str, Any]) -> None:
        """Write a checkpoint atomically: a new folder, then one rename."""
        rank, world = rank_and_world()
        draft = folder.with_suffix(".new")
        draft.mkdir(parents=True, exist_ok=True)
        frozen = {}
        if not self.settings.train_text:
            frozen = self.text_encoder.state_dict()
        learning = dict(self.optimizer.named)
        dead = {}
        for name, p in self.transformer.named_parameters():
            if f"transformer.{name}" not in learning:
                dead[name] = p.detach()
        torch.save(
            {
                "optimizer": self.optimizer.state(),
                "random": self.generator.get_state(),
                "step": self.step_count,
                "samples": self.samples,
                "settings": asdict(self.settings),
                "frozen": frozen,
                "dead": dead,
                "layers": len(self.transformer.transformer_blocks),
                **extra,
            },
            draft / f"rank{rank}.pt",
        )
        if world > 1:
            dist.barrier()
        if rank == 0:
            replace_folder(draft, folder)
        if world > 1:
            dist.barrier()

    def load(self, folder: Path) -> dict[str, Any]:
        """Continue a checkpoint; returns what `save` was given as extra, and more. With another
        number of processes only the random numbers differ."""
        rank, _ = rank_and_world()
        parts = load_checkpoint(folder)
        mine = parts[min(rank, len(parts) - 1)]
        self.optimizer.load([p["optimizer"] for p in parts])
        self.transformer.load_state_dict(mine["dead"], strict=False)
        if mine["frozen"]:
            self.text_encoder.load_state_dict(mine["frozen"])
        self.generator.set_state(mine["random"])
        self.step_count = mine["step"]
        self.samples = mine["samples"]
        return mine

    def restart_from_average(self) -> None:
        """Continue a finished run: weights from the average, no momentum, step count 0 for a new
        warm-up.
        """
        o = self.optimizer
        for name, value in o.average.items():
            o.master[name].copy_(value)
            o.first[name].zero_()
            if name in o.second:
                o.second[name].zero_()
        o.steps = self.step_count = 0
        o.share()


def replace_folder(draft: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one, which becomes FOLDER.old."""
    old = folder.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)


def float_state(module: Model) -> dict[str, Tensor]:
    """A module's weights in float32."""
    return {name: value.float() for name, value in module.state_dict().items()}


def load_checkpoint(folder: Path) -> list[dict[str, Any]]:
    """Every process's part of a checkpoint, process 0 first."""
    if not folder.exists():  # stopped between two renames
        folder = folder.with_suffix(".old")
    return [
        torch.load(p, map_location="cpu", weights_only=True)
        for p in sorted(folder.glob("rank*.pt"))
    ]


def train(
    trainer: Trainer, shards: Shards, progress: Callable[[int], float]
) -> Iterator[dict[str, float]]:
    """Train until progress(samples), the same on every process, reaches 1; yields the numbers of
    every step.
    """
    done = progress(trainer.samples)
    while done < 1:
        if trainer.step_count % 200 == 0:
            shards.refresh()
        state = trainer.step(shards.draw(trainer.settings.batch, trainer.generator), done)
        done = progress(trainer.samples)
        yield state | {"progress": done}
