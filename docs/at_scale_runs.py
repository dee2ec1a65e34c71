"""The dry runs behind docs/at-scale.md: each is run once and kept in at-scale.json.

A run tries the ways of holding the teacher, first those that change nothing and need no copying,
and keeps every answer, so that the page can say what does not fit, too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from at_scale_models import BF16, MODELS, Published, half_of

from workbench.distillation.dry_run import StepUse, Way
from workbench.distillation.estimate import (
    RESERVE,
    Devices,
    Estimate,
    Holding,
    Trained,
    estimate_on,
)
from workbench.distillation.stage_groups import in_groups
from workbench.plans import tokens_of
from workbench.recipes.table import load
from workbench.records import Stage, jsonfile
from workbench.specs.placements import PLACEMENTS, Sizes
from workbench.specs.teacher_weights import STORED_WEIGHTS
from workbench.tasks.distill_estimate import student_config
from workbench.tasks.profile_estimate import dry_scan

STORE = Path(__file__).with_name("at-scale.json")
CARDS = ("1x24GB", "1x48GB", "1x80GB", "8x80GB")
WHOLE = Holding("whole")
HELD = (WHOLE, Holding("whole", "int8"), Holding("streamed"), Holding("whole", "nf4"))


@dataclass(frozen=True)
class Work:
    """A distillation that is dry-run. recipe: whose stages. held: how the teacher is, in the order
    in which that is tried.
    """

    recipe: str
    cards: tuple[str, ...]
    held: tuple[Holding, ...]
    shard: bool = False
    checkpointing: bool = False


ONE = CARDS[:3]
WORKS = {
    "turns": Work("one-card", CARDS, HELD),
    "full": Work("one-card-full", ONE, (WHOLE, Holding("streamed")), checkpointing=True),
    "sharded": Work("amber-10b", CARDS[3:], (WHOLE,), shard=True, checkpointing=True),
}


@dataclass(frozen=True)
class Remembered(Trained):
    """Runs each step once: what it takes does not depend on the card."""

    known: dict[tuple[str, Way], StepUse] = field(default_factory=dict)

    def run(self, stage: Stage, way: Way) -> StepUse:
        key = (stage.model_dump_json(), way)
        if key not in self.known:
            self.known[key] = super().run(stage, way)
        return self.known[key]


def half_trained(model: Published) -> Remembered:
    """A student of half the blocks and its teacher."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = model.teacher(Path(folder))
    plan = half_of(teacher)
    tokens = tokens_of(teacher, model.size)
    return Remembered(teacher, plan, student_config(teacher, plan), tokens)


def distillation(
    trained: Trained, work: Work, card: str, size: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """The answers for one model on one card, until one fits; the last is that of `--estimate --for
    CARD`, its stages put together.
    """
    plans = {"parent": trained.plan, "original": trained.plan}
    stages = in_groups(load(work.recipe).distill, plans)
    for holding in work.held:
        *_, last = estimate_on(
            stages,
            trained,
            Devices.parse(card),
            shard=work.shard,
            checkpointing=work.checkpointing,
            holding=holding,
        )
        assert isinstance(last.result, Estimate)
        found = summary(last.result, holding)
        yield found
        if found["fits"] and encoding(found["held"], size) <= last.result.memory:
            return


def summary(found: Estimate, holding: Holding) -> dict[str, Any]:
    """What the page needs of an estimate. bytes: of one device, at the peak."""
    largest = max(found.stages, key=lambda stage: stage.bytes)
    return {
        "held": holding.weights if holding.weights != "as-loaded" else holding.placement,
        "fits": found.fits,
        "bytes": round(found.bytes),
        "host": round(max(stage.host for stage in found.stages)),
        "seconds": round(found.seconds),
        "parameters": found.parameters,
        "teacher_parameters": found.teacher_parameters,
        "parts": largest.parts,
        "checkpointing": largest.checkpointing,
        "terms": {name: round(size) for name, size in largest.terms.items()},
        "stages": len(found.stages),
    }


SCANNED = ("drop", "merge")
PROMPTS, TIMESTEPS = 20, 8  # `profile`'s own where nothing is said


def scans(model: Published) -> dict[str, Any]:
    """What `profile --batch 1` takes with the transformer whole and with its blocks streamed."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = model.teacher(Path(folder))
    found = {}
    for streamed in (False, True):
        use = dry_scan(teacher, SCANNED, tokens_of(teacher, model.size), 1, streamed=streamed)
        found["streamed" if streamed else "text-first"] = {
            "kinds": use.kinds,
            "forward_flops": use.forward_flops,
            "edits_flops": use.edits_flops,
        }
    return found


def sizes(model: Published) -> dict[str, int]:
    """Bytes of a pipeline's weights, as specs.placements.Sizes has them."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = model.teacher(Path(folder))
    encoders, others = model.bytes_beside()
    largest = 0
    for stack in teacher.stacks:
        largest = max(largest, *(stack.block_parameters(i) for i in range(stack.depth)))
    return {
        "transformer": BF16 * teacher.parameters,
        "outside": BF16 * teacher.outside,
        "largest_block": BF16 * largest,
        "text_encoders": encoders,
        "others": others,
    }


def encoding(held: str, size: dict[str, int]) -> float:
    """Bytes of weights while prompts are encoded and latents sampled, before the student comes."""
    known = Sizes(**size)
    if held in STORED_WEIGHTS:
        blocks = known.transformer - known.outside
        known = replace(known, packed=round(blocks * STORED_WEIGHTS[held].bits / 16))
    row = PLACEMENTS["streamed" if held == "streamed" else "text-first"]
    return row.needs(known, interleaved=True) + RESERVE


def kept() -> dict[str, Any]:
    return jsonfile.read_object(STORE, "dry runs") if STORE.is_file() else {}


def keep(name: str, value: Any) -> None:
    """One more result in the file; others that run meanwhile are not lost."""
    everything = {**kept(), name: value}
    STORE.write_text(json.dumps(dict(sorted(everything.items())), indent=1) + "\n")


def run(only: list[str], again: bool) -> None:
    """All that is missing, of these models."""
    for name in only or MODELS:
        model = MODELS[name]
        if f"{name} sizes" not in kept():
            keep(f"{name} sizes", sizes(model))
        if f"{name} profile" not in kept():
            keep(f"{name} profile", scans(model))
        size = kept()[f"{name} sizes"]
        trained = half_trained(model)
        for title, work in WORKS.items():
            for card in work.cards:
                key = f"{name} {title} {card}"
                if key in kept() and not again:
                    continue
                began = time.perf_counter()
                keep(key, list(distillation(trained, work, card, size)))
                print(f"{key}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
