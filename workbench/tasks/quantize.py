"""`workbench quantize`: which blocks are kept, then the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import plans
from ..records import BadInput, Progress
from ..specs import QuantizeSpec
from ..specs.quantized_forms import QUANTIZED_FORMS
from ..surgery.quantize import Quantizing, check
from ..surgery.quantize import quantize as write_quantized
from .context import Context
from .known_maps import named_map
from .resolve import Model, resolve

EDIT = "int4"  # of the map that names the blocks to keep


def quantize(spec: QuantizeSpec, context: Context) -> Iterator[Progress]:
    """Write the quantised student, then register it in the workspace."""
    order = order_of(spec, context)
    out = out_of(spec, context, order)
    for progress in write_quantized(order, out):
        if progress.result is not None:
            context.store.add("student", out)
        yield progress
        if progress.result is None and context.stop():
            return


def check_quantize(spec: QuantizeSpec, context: Context) -> None:
    """The student, the form, the map and the output."""
    check_flags(spec)
    model = resolve(spec.student, context.store, weights=False)
    if model.has_weights and model.kind not in ("config", "record"):
        order = order_of(spec, context)
        check(order, Path(spec.out).absolute() if spec.out else context.store.workspace / "new")


def order_of(spec: QuantizeSpec, context: Context) -> Quantizing:
    """What to write. Raises BadInput for what cannot be quantised."""
    check_flags(spec)
    model = resolve(spec.student, context.store)
    return Quantizing(
        source=model.folder,
        name=model.name,
        description=model.description,
        card=model.card,
        form=QUANTIZED_FORMS[spec.to],
        kept_blocks=kept_blocks(spec, model, context),
    )


def out_of(spec: QuantizeSpec, context: Context, order: Quantizing) -> Path:
    if spec.out is not None:
        return Path(spec.out).absolute()
    return context.store.out("student", f"{Path(order.name).name}-{order.form.name}")


def check_flags(spec: QuantizeSpec) -> None:
    if (spec.keep_by is None) != (spec.at_most is None):
        given = "--keep-by" if spec.keep_by else "--at-most"
        raise BadInput(f"{given} alone", "--keep-by MAP --at-most X", "give both, or neither")


def kept_blocks(spec: QuantizeSpec, model: Model, context: Context) -> frozenset[str]:
    """ "<stack>.<block>" that stay in bf16. Raises BadInput for a map of another model, or without
    scores of the edit.
    """
    if spec.keep_by is None or spec.at_most is None:
        return frozenset()
    found = named_map(spec.keep_by, context.store)
    if found.fingerprint != model.fingerprint:
        raise BadInput(
            f"map {spec.keep_by} is of {found.teacher} ({found.fingerprint or 'no weights'})",
            f"one of {model.name} ({model.fingerprint})",
            f"workbench profile {spec.student} --edits {EDIT} -o map.json",
        )
    scores = plans.block_scores(found, EDIT, "uniform")
    if not scores:
        raise BadInput(
            f"map {spec.keep_by} has the edits {', '.join(found.edits)}",
            f"scores of edit {EDIT}",
            f"workbench profile {spec.student} --edits {EDIT} -o map.json",
        )
    kept = plans.kept_blocks(scores, spec.at_most)
    return frozenset(f"{stack}.{block}" for stack, block in kept)
