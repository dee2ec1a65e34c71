"""The streamed map of low-rank modulation on a checkpoint of real width:
`python benchmarks/modulation.py [--blocks 60] [--width 3072] [--json]`.

A Qwen-Image transformer of that many blocks with random bf16 weights is made in a temporary folder
and removed afterwards: modulation and what lies outside the blocks at full size, attention and MLP
at full size too, as holes in the file that take no disk. `workbench profile FOLDER --edits
modulation:rank=8` then runs in a process of its own.

read_bytes: of the modulation linears. read_seconds: one plain read of the same bytes from the disk. seconds, ratio: of the profile, and to that read. peak_rss_mib, baseline_rss_mib: largest
resident memory of the profile's process, and after its imports. largest_tensor_mib: of the
modulation. Random weights say nothing about the error of a real model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import diffusers  # noqa: E402
import torch  # noqa: E402

from workbench.models.checkpoints import Reader  # noqa: E402
from workbench.models.headers import NAMES, STEM  # noqa: E402
from workbench.records import numel  # noqa: E402

CLASS = "QwenImageTransformer2DModel"
MODULATION = ("img_mod.1.", "txt_mod.1.")
CHILD = """
import json, sys, time
from pathlib import Path
from workbench import models
from workbench.sensitivity.edits import parse_edits
from workbench.sensitivity.modulation import measure
from workbench.surgery import peak_rss_mib
baseline = peak_rss_mib()
began = time.perf_counter()
folder = Path(sys.argv[1])
teacher = models.describe(folder, "random")
edits = parse_edits(["modulation:rank=8"], teacher)
record = list(measure(folder, teacher, edits))[-1].result
out = {"seconds": time.perf_counter() - began, "rows": len(record.rows)}
print(json.dumps(out | {"peak_rss_mib": peak_rss_mib(), "baseline_rss_mib": baseline}))
"""


def make_checkpoint(folder: Path, blocks: int, width: int) -> None:
    """A transformer folder whose modulation and outside tensors are random, the rest zero."""
    heads = width // 128
    with torch.device("meta"):
        model = getattr(diffusers, CLASS)(num_layers=blocks, num_attention_heads=heads)
    folder.mkdir(parents=True)
    config = {**model.config, "_class_name": CLASS}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        start = end
        end = start + 2 * numel(shape)
        header[name] = {
            "dtype": NAMES[torch.bfloat16],
            "shape": shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    with open(folder / f"{STEM}.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        base = file.tell()
        for name, shape in shapes.items():
            if name.startswith("transformer_blocks.") and not any(m in name for m in MODULATION):
                continue
            start = header[name]["data_offsets"][0]  # type: ignore[index]
            scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
            numbers = torch.randn(min(numel(shape), 2**22), generator=generator) * scale
            repeats = -(-numel(shape) // len(numbers))
            tensor = numbers.bfloat16().repeat(repeats)[: numel(shape)]
            file.seek(base + start)
            file.write(tensor.view(torch.uint8).numpy())
        file.truncate(base + end)


def one_read(folder: Path) -> tuple[int, float]:
    """Bytes of the modulation linears, and seconds to read them once."""
    began = time.perf_counter()
    count = 0
    with Reader(folder, keep=False) as reader:
        for name in reader.tensors:
            if any(mark in name for mark in MODULATION):
                for piece in reader.stream(name):
                    count += len(piece)
    return count, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modulation-") as root:
        folder = Path(root) / "transformer"
        make_checkpoint(folder, options.blocks, options.width)
        one_read(folder)  # leaves nothing of the file in memory
        size, seconds = one_read(folder)
        disk = sum(512 * file.stat().st_blocks for file in folder.iterdir())
        command = [sys.executable, "-c", CHILD, str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        child = json.loads(done.stdout)
    result = {
        "blocks": options.blocks,
        "width": options.width,
        "read_bytes": size,
        "read_seconds": round(seconds, 1),
        "seconds": round(child["seconds"], 1),
        "ratio": round(child["seconds"] / seconds, 2),
        "rows": child["rows"],
        "peak_rss_mib": round(child["peak_rss_mib"]),
        "baseline_rss_mib": round(child["baseline_rss_mib"]),
        "largest_tensor_mib": round(12 * options.width**2 / 2**20),
        "disk_bytes": disk,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result) if options.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
