"""The metrics and the edits: one row each. Importing this imports no torch.

A new metric or edit is one row, here or from outside:

    workbench.register("metric", "mine", Metric(.., measure=my_function))
    workbench.register("edit", "mine", EditKind(.., changes=my_function))

Functions that need torch are named as "module:attribute" and imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..plugins import Registry, registry
from ..plugins.registry import imported
from ..records import Init, Span, Teacher

KEEP = "higher = keep"
Needs = Literal["call", "calls", "pictures", "weights"]


@dataclass(frozen=True)
class Metric:
    """What the scores of a map are and how they are measured.

    needs, and what `measure` then is:
        call: measure(scan, call) -> scores of one recorded call (results.Scores: a score per sample
            under each key), of the blocks scan.places(edit) for every edit. The scan averages,
            resumes, leaves settled blocks out and splits over processes by itself.
        calls: measure(scan, calls, setting) -> progress; the last result is a
            results.Measurement. For metrics that need all calls at once.
        pictures: measure with the signature of pictures.profile_pictures.
        weights: measure with the signature of modulation.measure: no call of the model.
    edits: those that are scored unless others are named; empty where the metric chooses its own
        (then none can be named).
    rows_of: the edits that its rows bear where the metric chooses them.
    is_error: whether the scores are errors of a student before training, so that those of several
        blocks can be added up to a guess of a plan's error.
    trains: whether it trains on some prompts and scores on others: more prompts are taken, and the
        seeds of one prompt stay together.
    spec_fields: fields of ProfileSpec that only this metric takes; `options(spec)` reads them.
    streams: whether it can be measured on a model whose blocks are streamed: no gradient passes
        through the teacher's blocks.
    forwards: of the whole model for one call, where the metric makes no edits; a backward counts
        as two.
    """

    unit: str
    direction: str
    about: str
    needs: Needs
    measure: Callable[..., Any] | str
    edits: tuple[str, ...] = ()
    rows_of: tuple[str, ...] = ()
    is_error: bool = False
    trains: bool = False
    spec_fields: tuple[str, ...] = ()
    options: Callable[[Any], Any] | str | None = None
    streams: bool = True
    forwards: int = 1


@dataclass(frozen=True)
class EditOptions:
    """What the text after an edit's name says: merge:first:1 is init first and gain 1.

    text: the text itself, for edits from outside.
    """

    init: Init = "mean"
    gain: float = 2.0
    part: str = ""
    rank: int = 0
    text: str = ""


@dataclass(frozen=True)
class EditKind:
    """A kind of edit of one block.

    changes: changes(scan, edit, place) -> list[models.replay.Change], which blocks' forwards change
        and how.
    places: places(scan, edit) -> list[models.blocks.Place], where the edit applies; every block
        unless given.
    parse: parse(text after the name, teacher) -> EditOptions; raises ValueError with what was
        expected. None: nothing may follow the name.
    span: span(edit options, block) -> the span of a plan that makes this edit; None where no single
        span says it.
    blocks_removed: block forwards that the edited model saves.
    new_weights: whether the edited block may take memory beside the model's own weights.
    """

    about: str
    changes: Callable[..., Any] | str
    places: Callable[..., Any] | str | None = None
    parse: Callable[[str, Teacher], EditOptions] | str | None = None
    span: Callable[[EditOptions, int], Span] | str | None = None
    blocks_removed: int = 0
    new_weights: bool = True


def resolved(target: Callable[..., Any] | str) -> Callable[..., Any]:
    """A row's function, imported where the row names it."""
    if isinstance(target, str):
        function: Callable[..., Any] = imported(target)
        return function
    return target


HERE = "workbench.sensitivity"

METRIC_ROWS: Mapping[str, Metric] = {
    "prediction": Metric(
        "relative squared change of the prediction",
        KEEP,
        "How much the model's prediction changes when the edit is made, at each timestep of its "
        "own trajectory.",
        needs="call",
        measure=f"{HERE}.metrics:prediction",
        edits=("drop", "merge"),
        is_error=True,
    ),
    "influence": Metric(
        "1 - cosine of the block's input and output",
        KEEP,
        "How far the block turns the state that passes through it (ShortGPT). One forward; no edit "
        "is made.",
        needs="call",
        measure=f"{HERE}.metrics:influence",
        rows_of=("drop",),
    ),
    "taylor": Metric(
        "relative squared change of the prediction, to first order",
        KEEP,
        "How much the prediction changes when the block is dropped, estimated for all blocks by one "
        "forward and one backward. No edit is made.",
        needs="call",
        measure=f"{HERE}.taylor:taylor",
        rows_of=("drop",),
        streams=False,
        forwards=3,
    ),
    "cka": Metric(
        "CKA of the span's output and that of linear probes in its place, 0 to 1",
        "higher = the span can be replaced",
        "How well linear probes in place of a span's blocks reproduce the span's output (PPCL).",
        needs="calls",
        measure=f"{HERE}.cka:measure",
        rows_of=("span",),
    ),
    "recovery": Metric(
        "relative squared change of the prediction",
        KEEP,
        "How much the prediction changes when one block replaces a span: before and after a short "
        "training.",
        needs="calls",
        measure=f"{HERE}.recovery:measure",
        rows_of=("zero-shot", "recovered"),
        trains=True,
        spec_fields=("longest", "train_steps"),
        options=f"{HERE}.recovery:training_of",
    ),
    "image": Metric(
        "loss of the scorer's value",
        KEEP,
        "How much finished pictures lose when the edit is made, by a scorer (HierarchicalPrune).",
        needs="pictures",
        measure=f"{HERE}.pictures:profile_pictures",
        edits=("drop",),
        is_error=True,
        spec_fields=("scorer",),
    ),
    "modulation": Metric(
        "relative squared error of the block's modulation",
        KEEP,
        "How much a lower rank changes shift, scale and gate of a block, from its weights alone: "
        "nothing is sampled.",
        needs="weights",
        measure=f"{HERE}.modulation:measure",
        edits=("modulation:rank=8",),
    ),
}

EDIT_ROWS: Mapping[str, EditKind] = {
    "drop": EditKind(
        "The block returns its inputs.",
        changes=f"{HERE}.changes:drop",
        blocks_removed=1,
        new_weights=False,
    ),
    "merge": EditKind(
        "The block and the next one become one: merge[:init[:gain]], mean and 2 unless given.",
        changes=f"{HERE}.changes:merge",
        places=f"{HERE}.changes:mergeable",
        parse=f"{HERE}.edits:parse_merge",
        span=f"{HERE}.edits:merge_span",
        blocks_removed=1,
    ),
    "single": EditKind(
        "The text branch takes the image branch's weights: one stream.",
        changes=f"{HERE}.changes:replace_block",
        places=f"{HERE}.changes:dual_blocks",
        span=f"{HERE}.edits:single_span",
    ),
    "drop:PART": EditKind(
        "A part of the block contributes nothing, like drop:text.mlp.",
        changes=f"{HERE}.changes:replace_block",
        places=f"{HERE}.changes:blocks_with_part",
        parse=f"{HERE}.edits:parse_part",
        span=f"{HERE}.edits:part_span",
    ),
    "modulation:rank=K": EditKind(
        "The block's AdaLN linears become two factors of rank K.",
        changes=f"{HERE}.changes:replace_block",
        places=f"{HERE}.changes:blocks_with_modulation",
        parse=f"{HERE}.edits:parse_rank",
        span=f"{HERE}.edits:rank_span",
    ),
    "int4": EditKind(
        "The block's Linear weights go through 4 bits and back (GGUF's Q4_0).",
        changes=f"{HERE}.changes:quantize",
        places=f"{HERE}.changes:quantizable",
    ),
}

METRICS: Registry[Metric] = registry("metric")
EDITS: Registry[EditKind] = registry("edit")
