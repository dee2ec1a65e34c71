"""Weights in fewer bits: packed once, unpacked when they are used.

Only memory is saved. Products are computed on the unpacked weights, in the precision that the model
was loaded in, which is what weight-only kernels compute up to the order of their roundings.

bfloat16 is a cast. int8 has one scale per row, its largest magnitude / 127. nf4 is the NormalFloat
of QLoRA (arXiv 2305.14314, appendix E): 16 quantiles of a normal distribution, one scale per 64
weights, its largest magnitude; scales are kept in float32 (no double quantisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..records import numel

GROUP = 64  # weights that share a scale of nf4
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@dataclass(frozen=True)
class Packed:
    """A tensor in fewer bits. codes: int8, packed nibbles or bfloat16; scales: float32 or None."""

    kind: str
    codes: torch.Tensor
    scales: torch.Tensor | None
    shape: torch.Size

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.codes] if self.scales is None else [self.codes, self.scales]

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights again, rounded, on the device of the codes."""
        if self.scales is None:
            return self.codes.to(dtype)
        if self.kind == "int8":
            return (self.codes.float() * self.scales).to(dtype)
        levels = torch.tensor(NF4, device=self.codes.device)
        nibbles = torch.stack((self.codes >> 4, self.codes & 15), -1).flatten().int()
        values = levels[nibbles].reshape(-1, GROUP) * self.scales
        return values.flatten()[: numel(list(self.shape))].reshape(self.shape).to(dtype)


def packed(weight: torch.Tensor, kind: str) -> Packed:
    """A weight (rows, columns) in fewer bits, on its own device. kind: of specs.teacher_weights."""
    if kind == "bf16":
        return Packed(kind, weight.bfloat16(), None, weight.shape)
    if kind == "int8":
        return int8(weight)
    return nf4(weight)


def int8(weight: torch.Tensor) -> Packed:
    wide = weight.float()
    scales = wide.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
    codes = (wide / scales).round().clamp(-127, 127).to(torch.int8)
    return Packed("int8", codes, scales, weight.shape)


def nf4(weight: torch.Tensor) -> Packed:
    """The last group is filled up with zeros."""
    values = weight.float().flatten()
    groups = nn.functional.pad(values, (0, -len(values) % GROUP)).reshape(-1, GROUP)
    scales = groups.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    levels = torch.tensor(NF4, device=weight.device)
    between = (levels[1:] + levels[:-1]) / 2  # a weight goes to the nearest level
    nibbles = torch.bucketize(groups / scales, between).to(torch.uint8).reshape(-1, 2)
    return Packed("nf4", nibbles[:, 0] << 4 | nibbles[:, 1], scales, weight.shape)


def packable(block: nn.Module, in_float32: frozenset[str] = frozenset()) -> list[str]:
    """Names of the weights that are packed: of the block's linears.

    Biases and norms stay as they are, and so does what its class keeps in float32.
    """
    names = []
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and not in_float32 & set(name.split(".")):
            names.append(f"{name}.weight" if name else "weight")
    return names


def packed_bytes(rows: int, columns: int, bits: float) -> float:
    """Bytes of a packed weight, scales included. bits: StoredWeights.bits."""
    scales = 4 * rows if bits == 8 else 0
    return rows * columns * bits / 8 + scales
