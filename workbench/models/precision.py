"""What a forward computes in: bfloat16 where the device has kernels for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def has_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 is worth computing in: on a GPU, and on a CPU with AVX-512 or Arm's BF16.

    Other CPUs convert number by number: a product of (4800, 512) and (512, 512) took 26 times as
    long as in float32 on an AVX2 one.
    """
    if device_type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_f") or capabilities.get("bf16"))


def bfloat16_autocast(
    device_type: str, enabled: bool = True, keep_casts: bool = True
) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where it is enabled and the device has kernels for it, else nothing.

    keep_casts: keep the weights that it casts until the context ends.
    """
    if not (enabled and has_bfloat16(device_type)):
        return nullcontext()
    return torch.autocast(device_type, torch.bfloat16, cache_enabled=keep_casts)
