"""A distillation in a process that may not hold its teacher: `python benchmarks/capped.py [--json]`.

A Qwen-Image pipeline whose transformer has 60 narrow blocks is the teacher of a student of two. Three
runs, each in a process of its own: the teacher streamed and held whole, in a process whose own
allocations are limited (RLIMIT_DATA) to `--share` of the teacher's weights above what it has after
its imports; and held whole without a limit. ratio: what the streamed one grew by, over the bytes of
the teacher's weights. equal: whether the losses of the streamed run are those of the whole one, bit
for bit. whole_fits: whether the whole one ran within the limit; it should not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.big_model import distill_in_child, write_capped  # noqa: E402

FIGURES = ("first_loss", "last_loss", "recoverability")


def measure(depth: int, share: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_capped(folder, depth)
        room = int(share * size)
        capped = distill_in_child(folder, "streamed", room)
        if capped.returncode:
            raise SystemExit(capped.stderr[-2000:])
        refused = distill_in_child(folder, "whole", room)
        whole = distill_in_child(folder, "whole")
        streamed = json.loads(capped.stdout.splitlines()[-1])
        plain = json.loads(whole.stdout.splitlines()[-1])
    differing = [key for key in FIGURES if streamed["result"][key] != plain["result"][key]]
    return {
        "ratio": streamed["peak"] / size,
        "weights": size,
        "room": room,
        "peak": {"streamed": streamed["peak"], "whole": plain["peak"]},
        "equal": not differing,
        "losses": {name: streamed["result"][name] for name in FIGURES[:2]},
        "whole_fits": refused.returncode == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--depth", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.6)
    options = parser.parse_args()
    figures = measure(options.depth, options.share)
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
