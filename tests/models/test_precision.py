"""bfloat16 where the CPU has instructions for it, float32 where it has not."""

from __future__ import annotations

import pytest
import torch

from workbench.models.precision import bfloat16_autocast, has_bfloat16
from workbench.training.muon import orthogonalise

CPUS = {
    "AVX2": ({"architecture": "x86_64", "avx2": True, "avx512_f": False}, torch.float32),
    "AVX-512": ({"architecture": "x86_64", "avx2": True, "avx512_f": True}, torch.bfloat16),
    "Armv8.6": ({"architecture": "arm64", "bf16": True}, torch.bfloat16),
    "Armv8.0": ({"architecture": "arm64", "bf16": False}, torch.float32),
}


@pytest.mark.parametrize("cpu", CPUS)
def test_autocast_and_muon_compute_in_what_the_cpu_can(cpu: str, monkeypatch: pytest.MonkeyPatch):
    capabilities, dtype = CPUS[cpu]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    linear = torch.nn.Linear(8, 8)
    with bfloat16_autocast("cpu"):
        assert linear(torch.randn(2, 8)).dtype == dtype
    with bfloat16_autocast("cpu", enabled=False):
        assert linear(torch.randn(2, 8)).dtype == torch.float32
    assert orthogonalise(torch.randn(3, 8, 8)).dtype == dtype
    assert has_bfloat16("cpu") == (dtype == torch.bfloat16)


def test_a_gpu_computes_in_bfloat16():
    assert has_bfloat16("cuda")
