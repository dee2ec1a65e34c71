"""Conditioning vectors of a scan: those of a file, and those that its calls show."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn

from .. import plans
from ..models import conditioning
from ..records import Progress, Teacher
from ..records.sensitivity_map import VECTORS
from ..sensitivity.edits import Edit
from ..sensitivity.modulation import check_conditioning, check_rank_edits
from ..sensitivity.table import Metric
from ..specs import ProfileSpec
from ..students.modulation_fit import Basis
from ..workspace.store import Store
from .known_maps import recorded_vectors

RANKS = (8, 16, 32, 64)


def check_modulation(
    spec: ProfileSpec, metric: Metric, teacher: Teacher, edits: Sequence[Edit]
) -> None:
    """Raises BadInput for ranks of modulation that cannot be measured, before anything is loaded."""
    ranks = [edit for edit in edits if edit.options.rank]
    if metric.needs == "weights":
        check_rank_edits(edits, teacher)
    if ranks:
        check_conditioning(teacher, spec.conditioning)
    if spec.conditioning:
        conditioning.load_vectors(spec.conditioning)


def with_known_vectors(
    spec: ProfileSpec, teacher: Teacher, edits: Sequence[Edit], store: Store
) -> ProfileSpec:
    """The spec with the vectors recorded with an earlier map, where ranks need some and it names
    none.
    """
    if spec.conditioning or not any(edit.options.rank for edit in edits):
        return spec
    return spec.model_copy(update={"conditioning": recorded_vectors(teacher, store)})


def use_recorded(transformer: nn.Module, spec: ProfileSpec) -> None:
    """Factor the transformer's modulation on the vectors of the spec's file, if it names one."""
    if spec.conditioning:
        conditioning.use_vectors(transformer, conditioning.load_vectors(spec.conditioning))


def vectors_are_recorded(teacher: Teacher) -> bool:
    """Whether the conditioning depends on more than the timestep, so that a scan records it."""
    row = plans.family_of(teacher).conditioning
    return row is not None and not row.is_curve(teacher.config)


def recording(work: Iterator[Progress], transformer: nn.Module, out: Path) -> Iterator[Progress]:
    """Pass a scan's progress on; beside the map, write the conditioning vectors of its calls, and
    print what ranks leave out of them.
    """
    with conditioning.seen_vectors(transformer) as seen:
        for progress in work:
            if progress.result is not None and seen:
                write(seen, out.with_suffix(VECTORS))
            yield progress


def write(seen: Sequence[conditioning.Vectors], file: Path) -> None:
    vectors = conditioning.distinct(seen)
    conditioning.save_vectors(vectors, file)
    basis = Basis(vectors)
    ranks = [rank for rank in RANKS if rank < min(vectors.shape)]
    shares = ", ".join(f"rank {rank}: {basis.residual(rank):.2g}" for rank in ranks)
    print(
        f"{len(vectors)} conditioning vectors: {file}; share of their spread that a modulation "
        f"leaves out: {shares}",
        file=sys.stderr,
        flush=True,
    )
