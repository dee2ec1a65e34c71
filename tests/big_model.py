"""A Qwen-Image transformer of real structure, 60 blocks and some 330 MB of weights, written tensor by
tensor; and a script that profiles it in a process of its own and says how much memory that took.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import QwenImageTransformer2DModel

from tests.tiny import tiny_inputs, tiny_qwen_pipeline
from workbench import models, tasks
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


# --- a verb in a process that may not grow by as much as the model takes --------------------------

CAPPED_CHILD = """
import json, re, resource, sys
from pathlib import Path
import diffusers, torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration
from workbench import tasks
from workbench.tasks import distill

options = json.loads(sys.argv[1])
# RLIMIT_DATA counts what the process allocates; files that are mapped for reading are not memory
held = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
if options["room"]:
    limit = held + options["room"]
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = tasks.run("distill", options["spec"], Path(options["workspace"]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"peak": 1024 * peak, "result": result}))
"""
PLAN = """teacher: {teacher}
family: qwenimage
stacks:
  transformer_blocks:
    - {{blocks: [0, {middle}]}}
    - {{blocks: [{after}, {last}]}}
"""
STAGES = """name: capped
stages:
  - {name: fed, steps: 2, batch: 2, lr: 0.001}
  - {name: full, steps: 1, batch: 2, lr: 0.001, inputs: student, gradient: full, train: all, losses: {output: {}}}
"""


def write_capped(folder: Path, depth: int = 60) -> int:
    """A pipeline of `depth` blocks, a student of two of them, stages and prompts; the bytes of the
    teacher's transformer.
    """
    teacher = tiny_qwen_pipeline(folder / "teacher", depth=1)
    shutil.rmtree(teacher / "transformer")
    size = write_model(teacher / "transformer", depth)
    middle = depth // 2 - 1
    plan = PLAN.format(teacher=teacher, middle=middle, after=middle + 1, last=depth - 1)
    (folder / "plan.yaml").write_text(plan)
    (folder / "stages.yaml").write_text(STAGES)
    (folder / "prompts.txt").write_text("a red circle\na blue square\n")
    given = {"plan": str(folder / "plan.yaml"), "out": str(folder / "student")}
    tasks.run("build", given, folder / "workspace")
    return size


def distill_in_child(
    folder: Path, placement: str, room: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Distil the student; stdout's last line is {"peak": bytes it grew by, "result"}.

    room: bytes that the process may allocate beside what it has after its imports.
    """
    spec = {
        "student": str(folder / "student"),
        "spec": str(folder / "stages.yaml"),
        "data": str(folder / "prompts.txt"),
        "size": 32,
        "sampling_steps": 2,
        "watch": 0,
        "placement": placement,
        "out": str(folder / placement),
    }
    options = {"spec": spec, "workspace": str(folder / "workspace"), "room": room}
    return subprocess.run(
        [sys.executable, "-c", CAPPED_CHILD, json.dumps(options)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
