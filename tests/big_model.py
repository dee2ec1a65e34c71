"""A Qwen-Image transformer of real structure, 60 blocks and some 330 MB of weights, written tensor by
tensor; and a script that profiles it in a process of its own and says how much memory that took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import QwenImageTransformer2DModel

from tests.tiny import tiny_inputs
from workbench import models
from workbench.models import Call
from workbench.models.checkpoints import Writer

ROOT = Path(__file__).parents[1]
CHILD = """
import json, resource, sys, time
import diffusers, torch
import workbench as wb
from workbench import tasks
from workbench.models import placement
from diffusers import QwenImageTransformer2DModel

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

options = json.loads(sys.argv[1])
before = peak()
began = time.process_time()
record = wb.profile(**options)
seconds = time.process_time() - began
rows = [[row.block, row.edit, row.score] for row in record.rows]
print(json.dumps({"peak": peak() - before, "seconds": seconds, "rows": rows}))
"""


def write_model(folder: Path, depth: int = 60, heads: int = 3, head_dim: int = 64) -> int:
    """Write the transformer; its bytes. Blocks of 1.4 million float32 numbers."""
    with init_empty_weights():
        model = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=depth,
            attention_head_dim=head_dim,
            num_attention_heads=heads,
            joint_attention_dim=32,
            axes_dims_rope=(head_dim // 2, head_dim // 4, head_dim // 4),
        )
    model.save_config(folder)
    layout = {name: (p.dtype, p.shape) for name, p in model.state_dict().items()}
    torch.manual_seed(0)
    numbers = torch.randn(max(p.numel() for p in model.parameters()))  # the same in every block
    with Writer(folder, layout) as writer:
        for name in writer.order:
            dtype, shape = layout[name]
            values = numbers[: shape.numel()].reshape(shape)
            if "norm" in name and len(shape) == 1:
                values = torch.ones(shape)
            scale = 0.3 * shape[-1] ** -0.5 if len(shape) > 1 else 1.0
            writer.write(name, (values * scale).to(dtype))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def write_inputs(path: Path) -> Path:
    """One recorded call of the model."""
    call = Call(tiny_inputs(batch=1), 500.0, 0, 1, "cond")
    return models.save_inputs([call], path)


def profile_in_child(folder: Path, inputs: Path, out: Path, **options: Any) -> dict[str, Any]:
    """peak: bytes that the process grew by; seconds: of CPU; rows: [block, edit, score]."""
    spec = {"teacher": str(folder), "inputs": str(inputs), "out": str(out), **options}
    spec["workspace"] = str(out.parent / "workspace")
    result = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(spec)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer
