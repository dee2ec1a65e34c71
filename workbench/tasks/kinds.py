"""The kinds that look and cut: info, plan, plan-info, profile, build. Each checks its spec first, then works.

A spec is the verb's flags as plain data. Results are the JSON of the command line (DESIGN section 9).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import demo, models, plans, rules, sensitivity, surgery
from ..records import BadInput, Plan, Progress, SensitivityMap, Span, StackInfo, Teacher
from ..rules import recipes
from ..store import Store
from . import Context, until
from .locate import BUNDLED, locate, prompts_for, sampling


def describe(source: str, store: Store) -> Teacher:
    """A teacher from its headers, kept in the workspace."""
    path, name = locate(source, store, weights=False)
    teacher = models.describe(path, name)
    file = store.workspace / "teachers" / f"{Path(name).name}-{teacher.digest}.json"
    if not file.exists():
        teacher.save(file)
    return teacher


# --- info ----------------------------------------------------------------------------------------------------------


def info(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: teacher."""
    teacher = describe(spec["teacher"], context.store)
    stacks = [{"path": s.path, "depth": s.depth, "kind": s.kind, "block_parameters": typical(s),
               "blocks": [s.block_parameters(b) for b in range(s.depth)]} for s in teacher.stacks]
    result = {"teacher": teacher.name, "family": teacher.family, "class": teacher.class_name, "parameters": teacher.parameters,
              "outside": teacher.outside, "stacks": stacks, "parts": parts(teacher), "memory": plans.memory(teacher.parameters),
              "dtype": teacher.dtype, "fingerprint": teacher.fingerprint}
    yield Progress(step=1, total=1, result=result)


def typical(stack: StackInfo) -> int:
    """Parameters of a block of the layout that most blocks have."""
    common = max(set(stack.layout_of), key=stack.layout_of.count)
    return stack.block_parameters(stack.layout_of.index(common))


def parts(teacher: Teacher) -> dict[str, int]:
    """Parameters that each removable part has over all blocks that have it."""
    out: dict[str, int] = {}
    family = plans.family_of(teacher)
    for stack in teacher.stacks:
        row = family.stack(stack.path)
        for name, part in row.parts.items():
            for block in range(stack.depth - 1 if part.last_only else 0, stack.depth):
                whole, rest = (plans.span_parameters(Span(blocks=(block, block), drop=drop), stack, row) for drop in ((), (name,)))
                out[name] = out.get(name, 0) + whole - rest
    return out


# --- plan ----------------------------------------------------------------------------------------------------------


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


def map_for(teacher: Teacher, given: str | None, store: Store, needed: bool) -> SensitivityMap | None:
    """The map to plan with: the given file; else, where a rule needs one, the workspace's newest of this teacher, else the bundled one."""
    if given:
        known = None if Path(given).exists() else store.find("map", given)
        return SensitivityMap.load(known["path"] if known else given)
    if not needed:
        return None
    known_maps = store.maps(teacher.fingerprint) if teacher.fingerprint else []
    return SensitivityMap.load(known_maps[0]["path"]) if known_maps else bundled_map(teacher)


def bundled_map(teacher: Teacher) -> SensitivityMap | None:
    """The map that ships with a bundled teacher."""
    if teacher.name not in BUNDLED:
        return None
    path = Path(demo.__file__).parent / ("sensitivity.json" if teacher.name == "demo" else "sensitivity-12.json")
    return SensitivityMap.load(path) if path.is_file() else None


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


# --- profile -------------------------------------------------------------------------------------------------------


def profile(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: teacher, edits, metric, timesteps, prompts, seeds, steps, guidance, size, dtype, resume, out."""
    if spec.get("metric", "prediction") != "prediction":
        raise BadInput(f"metric {spec['metric']!r}", "prediction", "leave --metric out")
    path, name = locate(spec["teacher"], context.store)
    teacher = describe(spec["teacher"], context.store)
    edits = spec.get("edits") or ["drop", "merge"]
    for edit in edits:
        sensitivity.parse_edit(edit, teacher)
    how, seeds = sampling(path, name, spec), int(spec.get("seeds") or 1)
    prompts = prompts_for(path, name, spec.get("prompts"), 20)
    timesteps, batch = int(spec.get("timesteps") or 8), int(spec.get("batch") or 8)
    out = Path(spec.get("out") or context.store.workspace / "sensitivity" / f"{Path(name).name}-{teacher.fingerprint}.json").absolute()
    partial = out.with_name(f".{out.name}.partial")
    if not context.resume:
        partial.unlink(missing_ok=True)
    yield Progress(step=0, total=1, message=f"loading {name}")
    pipe = models.load_pipeline(path, device=context.device, dtype=spec.get("dtype"))
    pairs = [(prompt, seed) for seed in range(seeds) for prompt in prompts]
    calls = models.trajectories(pipe, [p for p, _ in pairs], seeds=[s for _, s in pairs], steps=how.steps, guidance=how.guidance,
                                size=how.size, timesteps=timesteps, batch=batch)
    total = -(-len(pairs) // batch) * len(models.chosen_steps(how.steps, timesteps))
    measured = {"prompts": prompts, "seeds": seeds, "samples": len(pairs), "timesteps": timesteps, **vars(how)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for progress in until(context.stop, sensitivity.profile(pipe.transformer, teacher, calls, edits=edits, partial=partial,
                                                            measured=measured, total=total)):
        if progress.result is None:
            yield progress
            continue
        record = progress.result
        record.save(out)
        partial.unlink(missing_ok=True)
        context.store.add("map", out)
        facts = record.model_dump(mode="json", include={"rows", "metric", "unit", "direction", "seconds", "block_evaluations",
                                                        "naive_block_evaluations"})
        yield Progress(step=progress.step, total=progress.total, result={"map": str(out), **facts})


# --- build ---------------------------------------------------------------------------------------------------------


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
