"""Building a student of a large checkpoint: `python benchmarks/build.py --gib 8 [--json]`.

A sharded checkpoint of about that size (blocks of Qwen-Image, random bf16 weights) is made in a
temporary folder and removed afterwards; its disk is named. Two plans are built from it, each beside
a plain copy of as many bytes of the same tensors (read, write, fsync, read back), alternating, with
the page cache dropped before every reading:

- at top level, the plan that drops every second block: nothing is computed, so the copy is what the
  disk allows;
- under "plans", it again and the plan that averages pairs of blocks (gain 2); its copy is of the
  bytes it writes.

seconds, cp_seconds: medians over --repeats, by the clock on the wall; ratio: of the two.
cpu_seconds, cp_cpu_seconds, cpu_ratio: the same in processor seconds, which other work on the
machine disturbs less, and which leave out the disk. peak_rss_mib: largest resident memory of the
child process that builds, baseline_rss_mib: the same before it began, after its imports.
largest_tensor_mib: of the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import models, surgery  # noqa: E402
from workbench.models.checkpoints import CHUNK, Writer  # noqa: E402
from workbench.models.file_io import forget  # noqa: E402
from workbench.models.headers import TensorInfo, headers  # noqa: E402
from workbench.records import BadInput, Plan, numel  # noqa: E402

SHARD = 2 * 2**30
CLASS = "QwenImageTransformer2DModel"


def byte_count(shapes: Mapping[str, tuple[object, tuple[int, ...]]]) -> int:
    """Bytes of bf16 tensors of these shapes."""
    return sum(2 * numel(list(shape)) for _, shape in shapes.values())


def make_checkpoint(folder: Path, gib: float) -> Path:
    """A Qwen-Image transformer of as many blocks as come nearest to `gib`, with at least two."""
    import diffusers
    import torch

    def shapes(depth: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        with torch.device("meta"):
            model = getattr(diffusers, CLASS)(num_layers=depth)
        return {
            name: (torch.bfloat16, tuple(tensor.shape))
            for name, tensor in model.state_dict().items()
        }

    one = byte_count(shapes(1))
    two = byte_count(shapes(2))
    depth = max(round((gib * 2**30 - one) / (two - one)) + 1, 2)
    layout = shapes(depth)
    noise = memoryview(random.Random(0).randbytes(CHUNK + 4096))

    def pieces(name: str) -> Iterator[memoryview]:
        size = 2 * numel(list(layout[name][1]))
        for number, at in enumerate(range(0, size, CHUNK)):
            start = 2 * ((number * 37 + len(name)) % 2048)  # not the same bytes again and again
            yield noise[start : start + min(CHUNK, size - at)]

    with Writer(folder, layout, max_shard_size=SHARD) as writer:
        for name in writer.order:
            writer.stream(name, pieces(name))
    (folder / "config.json").write_text(json.dumps({"_class_name": CLASS, "num_layers": depth}))
    return folder


def plans_of(depth: int) -> dict[str, Plan]:
    def plan(**more: object) -> Plan:
        spans = [
            {"blocks": [b, min(b + 1, depth - 1)], **(more if b + 1 < depth else {})}
            for b in range(0, depth, 2)
        ]
        return Plan.parse(
            {
                "teacher": "benchmark",
                "family": "qwenimage",
                "stacks": {"transformer_blocks": spans},
            },
            "the benchmark",
        )

    return {"drop": plan(), "merge": plan(init="mean", gain=2)}


def kept(folder: Path, plan: Plan) -> list[TensorInfo]:
    """The teacher's tensors as many as the student's: those of each span's first block, and all
    outside the stack.
    """
    blocks = {str(span.source[0]) for span in plan.stacks["transformer_blocks"]}
    tensors = headers(folder)
    mine = [
        info
        for name, info in tensors.items()
        if not name.startswith("transformer_blocks.") or name.split(".")[1] in blocks
    ]
    return sorted(mine, key=lambda info: (info.file, info.start))


def plain_copy(tensors: list[TensorInfo], out: Path) -> tuple[float, float]:
    """Seconds, and CPU seconds, to copy these bytes into one file, have them on the disk, and read
    them back.
    """
    began, cpu, buffer = time.perf_counter(), time.process_time(), memoryview(bytearray(CHUNK))
    with open(out, "wb", buffering=0) as target:
        for info in tensors:
            with open(info.file, "rb", buffering=0) as source:
                source.seek(info.start)
                left = info.bytes
                while left:
                    got = source.readinto(buffer[: min(left, CHUNK)])
                    target.write(buffer[:got])
                    left -= got
        os.fsync(target.fileno())
        forget(target)
    with open(out, "rb", buffering=0) as target:
        while target.readinto(buffer):
            pass
    took = time.perf_counter() - began, time.process_time() - cpu
    out.unlink()
    return took


def child(teacher: str, plan: str, out: str) -> None:
    """Build, and print what it took: the only thing this process does after its imports."""
    import diffusers

    getattr(diffusers, CLASS)  # diffusers imports its classes when they are asked for
    baseline = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the imports is none of ours
    drop_caches(Path(teacher))
    began, cpu = time.perf_counter(), time.process_time()
    result = list(
        surgery.build(teacher, models.describe(teacher, "benchmark"), Plan.load(plan), out)
    )[-1].result
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - began,
                "cpu_seconds": time.process_time() - cpu,
                "bytes": result["bytes"],
                "baseline_rss_mib": baseline,
                "peak_rss_mib": status("VmHWM"),
            }
        )
    )


def status(key: str) -> float:
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(f"{key}:")
    )
    return int(line.split()[1]) / 1024


def build(teacher: Path, plan: Path, out: Path) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, __file__, "--child", str(teacher), str(plan), str(out)],
        check=True,
        stdout=subprocess.PIPE,
    )
    shutil.rmtree(out)
    return dict(json.loads(ran.stdout))


def drop_caches(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            forget(file)


def measure(teacher: Path, plan: Plan, work: Path, repeats: int) -> dict[str, Any]:
    """Copy and build side by side, in turns, the order reversed every time."""
    file, tensors = plan.save(work / "plan.yaml"), kept(teacher, plan)
    copies, builds = [], []
    for number in range(repeats):
        for what in ("copy", "build") if number % 2 else ("build", "copy"):
            if what == "build":
                builds.append(build(teacher, file, work / "student"))
            else:
                drop_caches(teacher)
                copies.append(plain_copy(tensors, work / "copy"))
    seconds, cp_seconds = median(b["seconds"] for b in builds), median(wall for wall, _ in copies)
    cpu, cp_cpu = median(b["cpu_seconds"] for b in builds), median(cpu for _, cpu in copies)
    return {
        "seconds": seconds,
        "cp_seconds": cp_seconds,
        "ratio": seconds / cp_seconds,
        "cpu_seconds": cpu,
        "cp_cpu_seconds": cp_cpu,
        "cpu_ratio": cpu / cp_cpu,
        "peak_rss_mib": max(b["peak_rss_mib"] for b in builds),
        "baseline_rss_mib": median(b["baseline_rss_mib"] for b in builds),
        "gib_written": builds[0]["bytes"] / 2**30,
        "all_seconds": [b["seconds"] for b in builds],
        "all_cp_seconds": [wall for wall, _ in copies],
    }


def run(gib: float, folder: Path, repeats: int) -> dict[str, Any]:
    need, free = 1.6 * gib + 2, shutil.disk_usage(folder).free / 2**30
    if free < need:
        raise BadInput(
            f"{free:.1f} GiB free in {folder}",
            f"{need:.1f} GiB for --gib {gib:g}",
            "name another folder with --folder",
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="workbench-build-") as name:
        work = Path(name)
        print(f"{gib:g} GiB in {folder} ({disk_of(folder)})", file=sys.stderr)
        teacher = make_checkpoint(work / "teacher", gib)
        tensors = headers(teacher).values()
        depth = json.loads((teacher / "config.json").read_text())["num_layers"]
        measured = {
            kind: measure(teacher, plan, work, repeats) for kind, plan in plans_of(depth).items()
        }
        return {
            **measured["drop"],
            "largest_tensor_mib": max(info.bytes for info in tensors) / 2**20,
            "gib": sum(info.bytes for info in tensors) / 2**30,
            "blocks": depth,
            "shards": len({info.file for info in tensors}),
            "disk": disk_of(folder),
            "plans": measured,
        }


def disk_of(folder: Path) -> str:
    """Device and file system that hold the folder."""
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [
        (device, point, kind)
        for device, point, kind in mounts
        if folder.resolve().is_relative_to(point)
    ]
    device, _, kind = max(holding, key=lambda mount: len(mount[1]))
    return f"{device}, {kind}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return 0
    try:
        result = run(given.gib, given.folder, given.repeats)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(result))
        return 0
    for kind, row in result["plans"].items():
        print(
            f"{kind:6} {row['gib_written']:.1f} GiB  build {row['seconds']:6.1f} s  copy "
            f"{row['cp_seconds']:6.1f} s  "
            f"ratio {row['ratio']:.2f}  peak {row['peak_rss_mib']:.0f} MiB, before "
            f"{row['baseline_rss_mib']:.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
