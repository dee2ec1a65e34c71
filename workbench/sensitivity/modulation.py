"""Metric `modulation`: what a lower rank costs the modulation of each block, from weights alone.

No sampling, no prompts and no pipeline: the conditioning vectors come from the weights outside the
blocks, or from a file of recorded ones, and one linear of one block is in memory at a time.

The score of a block at a timestep t, over its modulation linears l together:

    sum_l |W_l (x_t - x'_t)|^2 / sum_l |W_l x_t + b_l|^2

where x_t is the conditioning vector and x'_t what the rank keeps of it. 0: nothing is lost. Where
vectors were recorded, both sums go over all of them and the row has no timestep.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import plans
from ..families import Layout, StackRow
from ..models.checkpoints import Reader
from ..models.conditioning import STEPS, basis_of_folder, check_curve
from ..models.folders import transformer_folder
from ..records import BadInput, Progress, Row, SensitivityMap, Teacher
from ..students.modulation_factors import Factoring, mean_linear
from ..students.modulation_fit import ROWS, Basis
from .edits import Edit, parse_edit
from .results import Measurement

NAME = "modulation"


@dataclass(frozen=True)
class Points:
    """The conditioning vectors (T, d) that are scored, and their timesteps; None: recorded ones,
    scored together.
    """

    numbers: list[int]
    timesteps: list[float] | None


def points(basis: Basis, recorded: bool, count: int) -> Points:
    """`count` timesteps of the curve, evenly with both ends, from noise to picture; of recorded
    vectors all.
    """
    if recorded:
        return Points(list(range(len(basis.vectors))), None)
    if count == 1:
        numbers = [STEPS // 2]
    else:
        numbers = [round(STEPS * i / (count - 1)) for i in reversed(range(count))]
    return Points(numbers, [float(number) for number in numbers])


def check_rank_edits(edits: Sequence[Edit], teacher: Teacher) -> None:
    """Raises BadInput for an edit that is not a rank of modulation, and where no block has one."""
    for edit in edits:
        if not edit.options.rank:
            raise BadInput(
                f"edit {edit.name} with metric {NAME}",
                "modulation:rank=K",
                "choose another --metric, or leave the edit out",
            )
        if not list(places(teacher, edit)):
            raise BadInput(
                f"{edit.name} of family {teacher.family}",
                "blocks with modulation linears of their own, and a rank below their sides",
                "lower the rank, or choose another edit",
            )


def places(teacher: Teacher, edit: Edit) -> Iterator[tuple[str, int]]:
    """(stack, block) where a plan may have the rank."""
    family = plans.family_of(teacher)
    for stack in teacher.stacks:
        row = family.stack(stack.path)
        for block in range(stack.depth):
            if plans.takes_rank(stack, row, family, block, edit.options.rank):
                yield stack.path, block


def check_conditioning(teacher: Teacher, vectors: str | None) -> None:
    """Raises BadInput where the vectors depend on more than the timestep and no file is given."""
    if vectors is None:
        check_curve(plans.family_of(teacher), teacher.config, teacher.name)


def measure(
    folder: Path,
    teacher: Teacher,
    edits: Sequence[Edit],
    *,
    timesteps: int = 8,
    vectors: Path | str | None = None,
) -> Iterator[Progress]:
    """Measure the map; the last Progress has it. Memory: one linear of one block.

    vectors: a file of recorded conditioning vectors. Raises BadInput as `check_rank_edits` and
    `check_conditioning` do.
    """
    began = time.perf_counter()
    check_rank_edits(edits, teacher)
    folder = transformer_folder(folder)
    basis = basis_of_folder(folder, vectors)
    at = points(basis, vectors is not None, timesteps)
    edits_of: dict[tuple[str, int], list[Edit]] = {}
    for edit in edits:
        for place in places(teacher, edit):
            edits_of.setdefault(place, []).append(edit)
    found = Measurement([], facts=facts(basis, edits, at, vectors))
    family = plans.family_of(teacher)
    with Reader(folder, keep=False) as reader:
        for step, ((path, block), of_block) in enumerate(edits_of.items()):
            yield Progress(step=step, total=len(edits_of), message=f"{path}.{block}")
            layout = teacher.stack(path).tensors(block)
            one = Block(reader, path, block, layout, family.stack(path))
            found.rows += one.rows(basis, at, of_block)
    record = SensitivityMap(
        teacher=teacher.name,
        fingerprint=teacher.fingerprint,
        family=teacher.family,
        metric=NAME,
        unit="relative squared error of the block's modulation",
        rows=sorted(found.rows, key=lambda row: -(row.timestep or 0.0)),
        measured=found.facts,
        seconds=time.perf_counter() - began,
    )
    yield Progress(step=len(edits_of), total=len(edits_of), message="done", result=record)


def facts(
    basis: Basis, edits: Sequence[Edit], at: Points, vectors: Path | str | None
) -> dict[str, Any]:
    """What the map says about how it was measured. residual: the share of the vectors' spread that
    each rank leaves out.
    """
    return {
        "conditioning": "t" if vectors is None else Path(vectors).name,
        "vectors": len(basis.vectors),
        "timesteps": len(at.timesteps or ()),
        "residual": {str(edit.options.rank): basis.residual(edit.options.rank) for edit in edits},
    }


@dataclass(frozen=True)
class Block:
    """One block of a checkpoint, read linear by linear."""

    reader: Reader
    path: str
    number: int
    layout: Layout
    row: StackRow

    def rows(self, basis: Basis, at: Points, edits: Sequence[Edit]) -> list[Row]:
        """The block's scores under each edit."""
        total = torch.zeros(len(at.numbers), dtype=torch.float64)
        lost = {edit.name: torch.zeros_like(total) for edit in edits}
        for linear in self.row.modulation_in(self.layout):
            outputs, errors = self.squares(linear, basis, at.numbers, edits)
            total += outputs
            for edit in edits:
                lost[edit.name] += errors[edit.name]
        rows = []
        for edit in edits:
            rows += self.rows_of(edit.name, lost[edit.name], total, at)
        return rows

    def rows_of(self, edit: str, lost: torch.Tensor, total: torch.Tensor, at: Points) -> list[Row]:
        if at.timesteps is None:
            score = float(lost.sum() / total.sum())
            return [Row(stack=self.path, block=self.number, edit=edit, score=score)]
        scores = (lost / total).tolist()
        return [
            Row(stack=self.path, block=self.number, edit=edit, timestep=timestep, score=score)
            for timestep, score in zip(at.timesteps, scores, strict=True)
        ]

    def squares(
        self, linear: str, basis: Basis, numbers: Sequence[int], edits: Sequence[Edit]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Squared norms (T,) of a linear's outputs, and of what each edit loses of them."""
        has_bias = Factoring(0, basis, self.layout).has_bias(linear)
        weight = mean_linear(linear, "weight", self.read, (0,), self.layout)
        chosen = basis.vectors[list(numbers)].double()
        groups = [chosen]
        groups += [basis.left_out(chosen, edit.options.rank, has_bias) for edit in edits]
        columns = torch.cat(groups).T.float()  # (d, T (1 + edits))
        bias = torch.zeros(len(weight))
        if has_bias:
            bias = mean_linear(linear, "bias", self.read, (0,), self.layout).float()
        squares = torch.zeros(columns.shape[1], dtype=torch.float64)
        for rows, offset in zip(weight.split(ROWS), bias.split(ROWS), strict=True):
            product = rows.float() @ columns
            product[:, : len(numbers)] += offset[:, None]
            squares += product.double().square().sum(0)
        outputs, *errors = squares.split(len(numbers))
        return outputs, {edit.name: error for edit, error in zip(edits, errors, strict=True)}

    def read(self, block: int, name: str) -> torch.Tensor:
        return self.reader.tensor(f"{self.path}.{self.number}.{name}")


RANKS = (4, 8, 16, 32, 64)  # that `smallest_rank` tries
BOUND = 5e-4  # of the score: rank 8 of the bundled teacher is within it, rank 4 is not


def smallest_rank(
    folder: Path, teacher: Teacher, bound: float = BOUND, vectors: Path | str | None = None
) -> int:
    """The smallest of RANKS with which the mean score of every block is at most `bound`; one pass
    over the modulation's weights.

    Raises BadInput where no rank is enough, and as `measure` does.
    """
    edits = []
    for rank in RANKS:
        edit = parse_edit(f"modulation:rank={rank}", teacher)
        if list(places(teacher, edit)):
            edits.append(edit)
    if not edits:
        check_rank_edits([parse_edit("modulation:rank=1", teacher)], teacher)
    record = list(measure(folder, teacher, edits, vectors=vectors))[-1].result
    for edit in edits:
        if max(block_means(record, edit.name)) <= bound:
            return edit.options.rank
    raise BadInput(
        f"no rank of modulation up to {edits[-1].options.rank} within an error of {bound:g}",
        "blocks whose conditioning vectors lie near a plane of few dimensions",
        "name a rank, or leave the modulation as it is",
    )


def block_means(record: SensitivityMap, edit: str) -> list[float]:
    """The mean score of each block over the timesteps."""
    scores: dict[tuple[str, int], list[float]] = {}
    for row in record.rows:
        if row.edit == edit:
            scores.setdefault((row.stack, row.block), []).append(row.score)
    return [sum(values) / len(values) for values in scores.values()]
