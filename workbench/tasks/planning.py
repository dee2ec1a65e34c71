"""The kinds that plan and cut: plan, plan-info, build. Each checks its spec first, then works.

A spec is the verb's flags as plain data. Results are the JSON of the command line (DESIGN section 9).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import models, plans, rules, surgery
from ..records import BadInput, Plan, Progress, SensitivityMap, Teacher
from ..rules import recipes
from . import Context
from .locate import locate
from .teachers import bundled_map, describe, map_for


def plan(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: teacher, rule | recipe, keep | budget, sensitivity, init, gain, single_from, protect, timestep_weight, out."""
    teacher = describe(spec["teacher"], context.store)
    recipe = recipes.load(spec["recipe"]) if spec.get("recipe") else None
    rule = spec.get("rule") or (recipe.plan["rule"] if recipe else "uniform")
    needs = rule in rules.RULES and rules.RULES[rule].needs_map
    found = map_for(teacher, spec.get("sensitivity"), context.store, needs)
    given = {"weighting": spec.get("timestep_weight"), "init": spec.get("init"), "gain": spec.get("gain")}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if spec.get("protect") is not None:
        options["protect"] = {s.path: frozenset(b for b in spec["protect"] if b < s.depth) for s in teacher.stacks}
    if recipe is None or spec.get("keep") is not None or spec.get("budget") is not None:
        options["keep"] = wanted(teacher, spec)
    if recipe:
        proposed = recipe.propose(teacher, found, rule=rule, **options)
    else:
        proposed = rules.propose(rule, teacher, sensitivity=found, **options)
    if spec.get("single_from") is not None:
        proposed = plans.check(single_from(proposed, spec["single_from"]), teacher)
    name = f"{recipe.name if recipe else rule}-{sum(proposed.depth().values())}"
    out = Path(spec["out"]) if spec.get("out") else context.store.out("plan", name, ".yaml")
    proposed.save(out)
    context.store.add("plan", out)
    yield Progress(step=1, total=1, result={"plan": str(out), **plans.info(proposed, teacher, found), "rule": rule,
                                            "spans": reasons(proposed, found)})


def wanted(teacher: Teacher, spec: dict[str, Any]) -> dict[str, int]:
    """Blocks to keep per stack, from `keep` (a number, or stack -> number) or `budget` (a share of the parameters)."""
    keep, budget = spec.get("keep"), spec.get("budget")
    if (keep is None) == (budget is None):
        raise BadInput("both --keep and --budget" if keep is not None else "neither --keep nor --budget", "one of them",
                       "say how small: --keep 12, --keep STACK=12 or --budget params=0.5")
    if budget is not None:
        return rules.keep_for_ratio(teacher, float(budget))
    if isinstance(keep, dict):
        return {teacher.stack(path).path: int(count) for path, count in keep.items()}
    if len(teacher.stacks) > 1:
        raise BadInput(f"--keep {keep} for {len(teacher.stacks)} stacks", "a number for each: " + ", ".join(s.path for s in teacher.stacks),
                       f"write --keep {teacher.stacks[0].path}={keep},..")
    return {teacher.stacks[0].path: int(keep)}  # type: ignore[arg-type]


def single_from(proposed: Plan, first: int) -> Plan:
    """The same plan with the student blocks from `first` on single-stream."""
    stacks = {path: [s.model_copy(update={"stream": "single"}) if j >= first else s for j, s in enumerate(spans)]
              for path, spans in proposed.stacks.items()}
    return proposed.model_copy(update={"stacks": stacks})


def reasons(proposed: Plan, found: SensitivityMap | None) -> list[dict[str, Any]]:
    """Each student block: what it is made of, and why."""
    weighting = str(proposed.origin.get("timestep_weight") or "normalised")
    scores = plans.block_scores(found, "drop", weighting) if found else {}
    ranked = {key: place for place, key in enumerate(sorted(scores, key=lambda k: -scores[k]), 1)}
    protect = proposed.origin.get("protect") or {}

    def told(path: str, block: int) -> str:
        key = (path, block)
        return f"block {block}: {scores[key]:.3g} (rank {ranked[key]} of {len(ranked)})" if key in scores else f"block {block}"

    rows = []
    for path, spans in proposed.stacks.items():
        for number, span in enumerate(spans):
            whole = range(span.first, span.last + 1)
            why = "kept as it is" if span.plain else f"{len(span)} blocks in one, init {span.init}, gain {span.gain:g}"
            why += "; protected" if any(b in protect.get(path, ()) for b in whole) else ""
            why += f"; {span.stream}-stream" if span.stream else ""
            reason = f"{why}; sensitivity " + ", ".join(told(path, b) for b in whole) if scores else f"{why}; even spans"
            rows.append({"stack": path, "block": number, **span.as_yaml(), "reason": reason})
    return rows


def plan_info(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: plan, teacher (else the plan's), sensitivity (else the map the plan was made from, where it is known)."""
    loaded = Plan.load(spec["plan"])
    teacher = describe(spec.get("teacher") or loaded.teacher, context.store)
    found = map_for(teacher, spec.get("sensitivity"), context.store, needed=False)
    digest = loaded.origin.get("sensitivity")
    if found is None and digest:
        known = context.store.find("map", str(digest))
        found = SensitivityMap.load(known["path"]) if known else bundled_map(teacher)
    yield Progress(step=1, total=1, result={"plan": str(spec["plan"]), "teacher": teacher.name, **plans.info(loaded, teacher, found),
                                            "stock": plans.stock(loaded)})


def build(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: plan (a file), teacher (else the plan's), dtype, out."""
    loaded = Plan.load(spec["plan"])
    path, name = locate(spec.get("teacher") or loaded.teacher, context.store)
    teacher = describe(str(spec.get("teacher") or loaded.teacher), context.store)
    plans.check(loaded, teacher)
    if path.is_file():
        raise BadInput(f"{path} is a config without weights", "a teacher folder", "name one with --teacher")
    dtype = models.parse_dtype(spec["dtype"]) if spec.get("dtype") else None
    out = Path(spec.get("out") or context.store.out("student", f"{Path(name).name}-{sum(loaded.depth().values())}")).absolute()
    for progress in surgery.build(path, teacher, loaded, out, dtype=dtype):
        if progress.result is not None:
            context.store.add("student", out)
        yield progress
        if progress.result is None and context.stop():
            return
