"""Training the demo's AutoencoderKLQwenImage on rendered crops, through a two-dimensional copy of
it.

For one frame a causal 3D convolution uses only its last temporal slice, so the copy has 2D
convolutions: the same output (tested) and several times faster on a CPU. `fold_back` writes the
copy's weights into the 3D model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage
from diffusers.models.autoencoders import autoencoder_kl_qwenimage as stock
from torch import nn

from ...models.precision import bfloat16_autocast
from ..render import render
from ..scenes import CATEGORIES, sample_scene
from .models import Model
from .optim import Muon, rank_and_world

Tensor = torch.Tensor


def build_vae(base: int = 16, z_dim: int = 8) -> Model:
    """A small Qwen-Image VAE: 8 x smaller latents, no temporal stages."""
    return AutoencoderKLQwenImage(
        base_dim=base,
        z_dim=z_dim,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False] * 3,
        latents_mean=[0.0] * z_dim,
        latents_std=[1.0] * z_dim,
    )


def _convolutions(module: Model) -> Iterator[tuple[Model, str, Model]]:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, stock.QwenImageCausalConv3d):
                yield parent, name, child


def flat_copy(vae: Model) -> Model:
    """A copy whose causal 3D convolutions are 2D convolutions with the last temporal slice's
    weights.
    """
    twin = copy.deepcopy(vae)
    for parent, name, conv in _convolutions(twin):
        flat: Model = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[1:],
            conv.stride[1:],
            conv._padding[0],
        )
        flat.weight.data = conv.weight.data[:, :, -1].clone()
        flat.bias.data = conv.bias.data.clone()
        setattr(parent, name, flat)
    return twin


def initialise(twin: Model) -> None:
    """Variance-keeping start: the stock one counts 27 taps where a single frame uses 9."""
    for name, p in twin.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    for module in twin.modules():
        if isinstance(module, stock.QwenImageAttentionBlock):
            nn.init.zeros_(module.proj.weight)


@torch.no_grad()
def fold_back(twin: Model, vae: Model) -> None:
    """Write the copy's weights into the 3D model; slices that one frame never uses become zero."""
    flat = twin.state_dict()
    for name, p in vae.state_dict().items():
        if p.ndim == 5:
            p.zero_()
            p[:, :, -1] = flat[name]
        else:
            p.copy_(flat[name])


def _norm(norm: Model, x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=1).to(x.dtype) * (
        norm.scale * norm.gamma.view(1, -1, 1, 1)
    ).to(x.dtype)


def _residual(block: Model, x: Tensor) -> Tensor:
    h = block.conv1(F.silu(_norm(block.norm1, x)))
    return block.conv2(F.silu(_norm(block.norm2, h))) + block.conv_shortcut(x)


def _attend(block: Model, x: Tensor) -> Tensor:
    q, k, v = block.to_qkv(_norm(block.norm, x)).flatten(2).mT.chunk(3, -1)  # (B, HW, C) each
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    return x + block.proj((weights @ v).mT.reshape(x.shape))


def _run(module: Model, x: Tensor) -> Tensor:
    if isinstance(module, stock.QwenImageResidualBlock):
        return _residual(module, x)
    if isinstance(module, stock.QwenImageAttentionBlock):
        return _attend(module, x)
    if isinstance(module, stock.QwenImageResample):
        return module.resample(x)
    if isinstance(module, stock.QwenImageMidBlock):
        return _residual(
            module.resnets[1], _attend(module.attentions[0], _residual(module.resnets[0], x))
        )
    for child in [*module.resnets, *(module.upsamplers or [])]:  # an up block
        x = _run(child, x)
    return x


def encode(twin: Model, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in [-1, 1] to the posterior's mean and log variance, each (B, z, H/8,
    W/8).
    """
    encoder = twin.encoder
    x = encoder.conv_in(images)
    for block in encoder.down_blocks:
        x = _run(block, x)
    x = _run(encoder.mid_block, x)
    x = twin.quant_conv(encoder.conv_out(F.silu(_norm(encoder.norm_out, x))))
    mean, log_variance = x.float().chunk(2, 1)
    return mean, log_variance.clamp(-30, 20)


def decode(twin: Model, latents: Tensor) -> Tensor:
    """Latents (B, z, h, w) to images (B, 3, 8h, 8w), not clamped."""
    decoder = twin.decoder
    x = decoder.conv_in(twin.post_quant_conv(latents))
    x = _run(decoder.mid_block, x)
    for block in decoder.up_blocks:
        x = _run(block, x)
    return decoder.conv_out(F.silu(_norm(decoder.norm_out, x))).float()


def to_tensor(pictures: np.ndarray, device: str = "cpu") -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in [-1, 1], channels last."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def vae_loss(twin: Model, images: Tensor) -> tuple[Tensor, Tensor]:
    """L1 + 0.5 L1 of differences + 2e-4 KL; and the mean squared error, for reading."""
    mean, log_variance = encode(twin, images)
    latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    error = decode(twin, latents.to(images.dtype)) - images
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / images.shape[1]
    return error.abs().mean() + 0.5 * edges + 2e-4 * kl, (error.detach() ** 2).mean()


def crop_stream(batch: int, crop: int, pool: int, seed: int) -> Iterator[np.ndarray]:
    """Endless random crops, uint8 (batch, crop, crop, 3), from a pool of rendered scenes; half of
    them text.
    """
    rng = np.random.default_rng(seed)
    weights = np.array([0.12, 0.14, 0.14, 0.14, 0.46])
    scenes = []
    for _ in range(pool):
        category = CATEGORIES[rng.choice(5, p=weights)]
        scenes.append(sample_scene(category, int(rng.integers(10**8))))
    pictures = np.stack([render(scene) for scene in scenes])
    offsets = np.arange(crop)
    while True:
        index = rng.integers(len(pictures), size=(batch, 1, 1))
        top = rng.integers(pictures.shape[1] - crop + 1, size=(2, batch, 1))
        yield pictures[index, (top[0] + offsets)[:, :, None], (top[1] + offsets)[:, None, :]]


def train_vae(
    vae: Model,
    progress: Callable[[], float],
    batch: int = 8,
    crop: int = 64,
    pool: int = 3000,
    lr: float = 4e-3,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[dict[str, float]]:
    """Train in place until progress() (0 to 1, the same on every process) reaches 1; yields the
    state of every step.
    """
    rank, _ = rank_and_world()
    twin = flat_copy(vae)
    torch.manual_seed(seed)
    initialise(twin)
    twin.to(device, memory_format=torch.channels_last)
    torch.manual_seed(seed + 1 + rank)
    optimizer = Muon(twin.named_parameters(), ema=0.99)
    crops = crop_stream(batch, crop, pool, seed + rank)
    step = 0
    done = progress()
    while done < 1:
        images = to_tensor(next(crops), device).contiguous(memory_format=torch.channels_last)
        with bfloat16_autocast(device.split(":")[0]):
            loss, mse = vae_loss(twin, images)
        twin.zero_grad()
        loss.backward()
        rate = min(1, (step + 1) / 50) * min(1, max(2 * (1 - done), 0.01))
        optimizer.step(lr * rate, lr * rate)
        step += 1
        done = progress()
        yield {
            "step": step,
            "loss": loss.item(),
            "psnr": float(10 * np.log10(4 / mse.item())),
            "progress": done,
        }
    twin.load_state_dict(optimizer.gather(optimizer.average), strict=False)
    fold_back(twin.to("cpu"), vae)
