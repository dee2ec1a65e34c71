"""What low-rank modulation costs the bundled teachers before any training:
`python benchmarks/rank_error.py [--teachers demo,demo-12] [--ranks 2,4,8,16,32] [--json]`.

error: relative squared error of the prediction, mean over 6 timesteps and 10 prompts, when the
modulation of every block has that rank. left: share of the parameters. Two ways to choose the
directions: `curve`, the principal ones of the conditioning vectors, the same for all linears (what
the workbench does), and `outputs`, those that are best for the outputs of each linear over the
vectors, from its singular values. residual: share of the vectors' spread that a rank leaves out.
ratio: the error of `outputs` over that of `curve`; on top the smallest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.zero_shot import meters  # noqa: E402
from workbench import demo, models, plans  # noqa: E402
from workbench.models import conditioning  # noqa: E402
from workbench.sensitivity.error import relative_change  # noqa: E402
from workbench.sensitivity.measured_error import PlanMeter  # noqa: E402
from workbench.students.modulation_fit import Basis  # noqa: E402

FIRST = 64  # principal directions that the other way chooses among


def best_for_outputs(linear: nn.Linear, basis: Basis, rank: int) -> tuple[Any, Any]:
    """Weight and bias of full shape whose outputs over the vectors are nearest to the linear's, of
    all of this rank around their mean.
    """
    directions = basis.directions[:FIRST]
    values = basis.singular_values[:FIRST]
    outputs = linear.weight.double() @ directions.T * values  # (out, FIRST)
    left, _, _ = torch.linalg.svd(outputs, full_matrices=False)
    kept = left[:, :rank]
    weight = kept @ (kept.T @ linear.weight.double() @ directions.T) @ directions
    bias = linear.bias.double() + (linear.weight.double() - weight) @ basis.mean
    return weight.float(), bias.float()


def linears_of(transformer: nn.Module) -> list[nn.Linear]:
    family = models.family_of(transformer)
    found: list[Any] = []
    for row in family.stacks:
        for block in transformer.get_submodule(row.path):  # type: ignore[attr-defined]
            found += [block.get_submodule(linear) for linear in row.modulation]
    return found


def error_now(judge: PlanMeter) -> float:
    """The same error of the transformer as its weights are now."""
    times: dict[float, list[float]] = {}
    for call, inputs, reference in zip(judge.calls, judge.inputs, judge.references, strict=True):
        change = relative_change(reference, judge.replay.prediction(inputs))
        times.setdefault(call.timestep, []).extend(change.tolist())
    means = [sum(values) / len(values) for values in times.values()]
    return sum(means) / len(means)


@torch.no_grad()
def measure(name: str, ranks: Sequence[int], cache: Path) -> list[dict[str, Any]]:
    folder = Path(demo.teacher_folder(name, cache))
    teacher = models.describe(folder, name)
    _, judge = meters(folder, teacher)
    whole = plans.identity(teacher)
    basis = conditioning.basis_of_module(judge.transformer)
    linears = linears_of(judge.transformer)
    stored = [(linear.weight.clone(), linear.bias.clone()) for linear in linears]
    rows = []
    for rank in ranks:
        plan = plans.with_modulation(whole, teacher, rank)
        row = {"teacher": name, "rank": rank, "curve": judge.error(plan)}
        row["left"] = plans.parameters(plan, teacher) / teacher.parameters
        row["residual"] = basis.residual(rank)
        for linear in linears:
            weight, bias = best_for_outputs(linear, basis, rank)
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        row["outputs"] = error_now(judge)
        for linear, (weight, bias) in zip(linears, stored, strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| teacher | rank | parameters left | curve | outputs |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row['teacher']} | {row['rank']} | {100 * row['left']:.1f} % | {row['curve']:.2g} "
            f"| {row['outputs']:.2g} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--teachers", default="demo,demo-12")
    parser.add_argument("--ranks", default="2,4,8,16,32")
    options = parser.parse_args()
    ranks = [int(rank) for rank in options.ranks.split(",")]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for name in options.teachers.split(","):
            rows += measure(name, ranks, Path(cache))
    for row in rows:
        row["ratio"] = row["outputs"] / row["curve"]
    ratio = min(row["ratio"] for row in rows)
    print(json.dumps({"ratio": ratio, "rows": rows}) if options.json else table(rows))


if __name__ == "__main__":
    main()
