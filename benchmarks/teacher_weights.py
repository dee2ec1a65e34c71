"""How far a map moves when its teacher is held in fewer bits: `python benchmarks/teacher_weights.py`.

The same scan (edits drop and merge, metric prediction, same prompts and seeds) of a bundled teacher,
as it is loaded and with each of `--teacher-weights`; every scan samples its own trajectories, as a
person's would. ranks: Spearman's correlation of the blocks' scores over all timesteps, by edit.
error: mean over rows of |score - score as loaded| / score as loaded. ratio: bytes of the teacher's
weights as they are held over those as loaded, blocks in use counted. seconds: of CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import plans, tasks  # noqa: E402
from workbench.models.placement import sizes_of  # noqa: E402
from workbench.records import SensitivityMap  # noqa: E402
from workbench.specs.placements import PLACEMENTS  # noqa: E402
from workbench.specs.teacher_weights import AS_LOADED, STORED_WEIGHTS  # noqa: E402
from workbench.tasks.prompts import prompts_for  # noqa: E402
from workbench.tasks.resolve import resolve  # noqa: E402
from workbench.workspace.store import Store  # noqa: E402

EDITS = ("drop", "merge")


def scan(teacher: str, weights: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    given = {"teacher": teacher, "teacher_weights": weights, "edits": list(EDITS), **options}
    began = time.process_time()
    result = tasks.run("profile", given, folder)
    record = SensitivityMap.load(result["map"])
    return {"record": record, "seconds": time.process_time() - began}


def difference(record: SensitivityMap, of: SensitivityMap) -> dict[str, Any]:
    """ranks, error and the largest error of one map against another."""
    ranks = {}
    for edit in EDITS:
        own, other = plans.block_scores(record, edit=edit), plans.block_scores(of, edit=edit)
        places = sorted(other)
        correlation = spearmanr([own[p] for p in places], [other[p] for p in places])
        ranks[edit] = float(correlation.statistic)
    errors = []
    for one, two in zip(record.rows, of.rows, strict=True):
        errors.append(abs(one.score - two.score) / two.score)
    return {"ranks": ranks, "error": statistics.mean(errors), "largest_error": max(errors)}


def bytes_held(teacher: str, weights: str, folder: Path) -> int:
    model = resolve(teacher, Store(folder))
    return PLACEMENTS["whole"].needs(sizes_of(model.folder / "transformer", "cpu", None, weights))


def measure(teacher: str, timesteps: int, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts = prompts_for(resolve(teacher, Store(folder)), None, count)
        (folder / "prompts.txt").write_text("\n".join(prompts))
        options = {"timesteps": timesteps, "prompts": str(folder / "prompts.txt")}
        plain = scan(teacher, AS_LOADED, folder, options)
        whole = bytes_held(teacher, AS_LOADED, folder)
        rows = {}
        for weights in STORED_WEIGHTS:
            found = scan(teacher, weights, folder, options)
            rows[weights] = difference(found["record"], plain["record"]) | {
                "ratio": bytes_held(teacher, weights, folder) / whole,
                "seconds": found["seconds"],
            }
    return {
        "teacher": teacher,
        "ratio": rows["int8"]["ratio"],
        "seconds": plain["seconds"],
        "weights": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--teacher", default="demo-12")
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=8, help="how many of the bundled scenes")
    arguments = parser.parse_args()
    figures = measure(arguments.teacher, arguments.timesteps, arguments.prompts)
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    for weights, row in figures["weights"].items():
        print(weights, row)


if __name__ == "__main__":
    main()
