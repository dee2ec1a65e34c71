"""The kinds that propose and look at plans: plan, plan-info.

A spec is the verb's flags as plain data. Results are the JSON of the command line (DESIGN section
9).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plans, rules
from ..plans import Tokens
from ..recipes import recipe as recipes
from ..recipes.recipe import Recipe
from ..records import BadInput, Plan, Progress, SensitivityMap, Span, Teacher
from ..rules import Budget, Rule
from ..specs import PlanSpec
from .context import Context
from .info import bundled_map, describe, map_for
from .prompts import prompts_for
from .resolve import locate, resolve, sampling

if TYPE_CHECKING:
    from ..sensitivity.plan_error import PlanMeter

PROMPTS, TIMESTEPS = 5, 4  # what measured rules measure on, unless told otherwise
# to rules.proposing, as they are
PASSED = (
    "init",
    "gain",
    "single_from",
    "slim_from",
    "parts",
    "edits",
    "longest",
    "margin",
    "shortlist",
    "minutes",
    "tries",
)


def plan(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: teacher, rule | recipe, keep | budget, sensitivity, timestep_weight, protect,
    free_cuts, out, what PASSED names; for rules that measure also start, prompts | inputs,
    timesteps, seeds, steps, guidance, size, batch, dtype."""
    teacher = describe(spec["teacher"], context.store)
    ask = Ask(spec, teacher, context)
    options = ask.options()
    if ask.rule.measures:
        meter = yield from ask.meter()
        options |= {"measure": meter.error, "settle": meter.settle}
    if ask.name == "search":
        options["start"] = yield from ask.start()
        if ask.budget.empty:
            options["keep"] = options["start"].depth()
    if ask.recipe is not None:
        own = {"rule": ask.name} if spec.get("rule") else {}
        work = ask.recipe.proposing(teacher, ask.map, ask.student, **own, **options)
    else:
        work = rules.proposing(ask.name, teacher, sensitivity=ask.map, **options)
    proposed: rules.Proposed | None = None
    for progress in work:
        if progress.result is not None:
            proposed = progress.result
        else:
            yield progress
            if context.stop():
                return
    assert proposed is not None
    made = (
        plans.check(plans.cut_free(proposed.plan, teacher), teacher)
        if spec.get("free_cuts")
        else proposed.plan
    )
    name = f"{ask.recipe.name if ask.recipe else ask.name}-{sum(made.depth().values())}"
    out = Path(spec["out"]) if spec.get("out") else context.store.out("plan", name, ".yaml")
    made.save(out)
    context.store.add("plan", out)
    result = {
        "plan": str(out),
        **plans.plan_info(made, teacher, ask.map, tokens=ask.tokens()).to_json(),
        "rule": ask.name,
        "spans": reasons(made, proposed),
    }
    if ask.rule.measures:
        result |= {"measured_error": meter.error(made), "measured_plans": len(meter.measured)}
    yield Progress(step=1, total=1, result=result)


@dataclass
class Ask:
    """What a spec asks of the rules, read once."""

    spec: dict[str, Any]
    teacher: Teacher
    context: Context

    def __post_init__(self) -> None:
        spec = self.spec
        self.path, self.where = locate(spec["teacher"], self.context.store, weights=False)
        self.student = (self.path / "card.json").is_file()
        self.recipe: Recipe | None = recipes.load(spec["recipe"]) if spec.get("recipe") else None
        self.name: str = spec.get("rule") or (
            self.recipe.settings(self.student)["rule"] if self.recipe else "uniform"
        )
        if self.name not in rules.RULES:
            raise BadInput(
                f"rule {self.name!r} is unknown", "one of " + ", ".join(rules.RULES), "choose one"
            )
        if (start := spec.get("start")) in rules.RULES and rules.RULES[start].measures:
            raise BadInput(
                f"--start {start}",
                "a plan file, or a rule that does not measure",
                f"write its plan first: --rule {start} -o plan.yaml",
            )
        self.rule: Rule = rules.RULES[self.name]
        self.budget = self._budget()
        self.map = self._map()

    def options(self) -> dict[str, Any]:
        """Keywords of rules.proposing."""
        spec = self.spec
        options = {key: spec[key] for key in PASSED if spec.get(key) is not None}
        if isinstance(options.get("edits"), list):
            options["edits"] = ",".join(options["edits"])
        if spec.get("timestep_weight") is not None:
            options["weighting"] = spec["timestep_weight"]
        if spec.get("protect") is not None:
            options["protect"] = {
                s.path: frozenset(b for b in spec["protect"] if b < s.depth)
                for s in self.teacher.stacks
            }
        if not self.budget.empty:
            options |= {
                "budget": self.budget,
                **({"keep": self.budget.keep} if self.budget.keep is not None else {}),
            }
        return options

    def _budget(self) -> Budget:
        """What was asked for; empty where the recipe or a plan to start from says it."""
        keep, budget = self.spec.get("keep"), self.spec.get("budget")
        if keep is not None and budget is not None and self.name not in ("hierarchical", "greedy"):
            raise BadInput(
                "both --keep and --budget",
                "one of them",
                "say how small: --keep 12, --keep STACK=12 or --budget params=0.5",
            )
        from_plan = self.name == "search" and self.spec.get("start") not in (None, *rules.RULES)
        if keep is None and budget is None and self.recipe is None and not from_plan:
            raise BadInput(
                "neither --keep nor --budget",
                "one of them",
                "say how small: --keep 12, --keep STACK=12 or --budget params=0.5",
            )
        return Budget.parse(
            budget, blocks(self.teacher, keep) if keep is not None else None, self.tokens()
        )

    def _map(self) -> SensitivityMap | None:
        """The map given; else, where the rule needs one, the workspace's newest that it can read,
        else the bundled one.
        """
        given = self.spec.get("sensitivity")
        if given or not self.rule.needs_map:
            return map_for(self.teacher, given, self.context.store, needed=False)
        if (
            self.recipe is not None
            and not self.spec.get("rule")
            and self.budget.empty
            and self.recipe.released(self.teacher, self.student)
        ):
            return None  # a released list is the plan, and its map was another's
        known = [
            row
            for row in self.context.store.maps(self.teacher.fingerprint)
            if readable(self.rule, row["metric"])
            and (self.teacher.fingerprint or row["teacher"] == self.teacher.name)
        ]
        found = SensitivityMap.load(known[0]["path"]) if known else bundled_map(self.teacher)
        return found if found is not None and readable(self.rule, found.metric) else None

    def tokens(self) -> Tokens:
        """Sequence lengths at the size at which this teacher is sampled."""
        return plans.tokens_of(self.teacher, self.spec.get("size"))

    def meter(self) -> Generator[Progress, None, PlanMeter]:
        """Load the teacher, record its trajectory, and return what measures plans on it."""
        from .. import models
        from ..sensitivity.plan_error import PlanMeter
        from .calibration import from_file

        spec, context = self.spec, self.context
        path, where = locate(spec["teacher"], context.store)
        if path.is_file():
            raise BadInput(
                f"{path} is a config without weights",
                f"a teacher folder: rule {self.name} measures",
                "name one",
            )
        yield Progress(step=0, total=1, message=f"loading {where}")
        if spec.get("inputs"):
            if spec.get("prompts"):
                raise BadInput("--inputs with --prompts", "one of them", "leave --prompts out")
            source = from_file(path, Path(spec["inputs"]), context, spec.get("dtype"))
            transformer, calls = source.transformer, list(source.calls)
        else:
            pipe = models.load_pipeline(path, device=context.device, dtype=spec.get("dtype"))
            how, transformer = sampling(path, where, spec), pipe.transformer
            prompts = prompts_for(
                resolve(spec["teacher"], context.store), spec.get("prompts"), PROMPTS
            )
            pairs = [
                (prompt, seed) for seed in range(int(spec.get("seeds") or 1)) for prompt in prompts
            ]
            yield Progress(step=0, total=1, message=f"sampling {len(pairs)} trajectories")
            calls = list(
                models.trajectories(
                    pipe,
                    [p for p, _ in pairs],
                    seeds=[s for _, s in pairs],
                    steps=how.steps,
                    guidance=how.guidance,
                    size=how.size,
                    timesteps=int(spec.get("timesteps") or TIMESTEPS),
                    batch=int(spec.get("batch") or 8),
                )
            )
        meter: PlanMeter = PlanMeter(
            transformer,
            self.teacher,
            calls,
            weighting=spec.get("timestep_weight") or self.rule.weighting,
        )
        return meter

    def start(self) -> Generator[Progress, None, Plan]:
        """The plan a search improves: a file, or another rule's for the same budget."""
        wanted = self.spec.get("start") or "uniform"
        if wanted in rules.RULES:
            row = rules.RULES[wanted]
            yield Progress(step=0, total=1, message=f"starting with rule {wanted}")
            other = Ask({**self.spec, "rule": wanted, "recipe": None}, self.teacher, self.context)
            options = {
                k: v for k, v in other.options().items() if k in (*row.options, "keep", "budget")
            }
            return rules.propose(wanted, self.teacher, sensitivity=other.map, **options)
        return plans.check(Plan.load(wanted), self.teacher)


def readable(rule: Rule, metric: str) -> bool:
    """Whether a rule reads maps of this metric: its own, or any with `drop` rows."""
    return (
        metric == rule.metric if rule.metric in rules.OWN_METRIC else metric not in rules.OWN_METRIC
    )


def blocks(teacher: Teacher, keep: Any) -> dict[str, int]:
    """Blocks to keep per stack, from a number, or stack -> number."""
    if isinstance(keep, dict):
        return {teacher.stack(path).path: int(count) for path, count in keep.items()}
    if len(teacher.stacks) > 1:
        raise BadInput(
            f"--keep {keep} for {len(teacher.stacks)} stacks",
            "a number for each: " + ", ".join(s.path for s in teacher.stacks),
            f"write --keep {teacher.stacks[0].path}={keep},..",
        )
    return {teacher.stacks[0].path: int(keep)}


def reasons(made: Plan, proposed: rules.Proposed) -> list[dict[str, Any]]:
    """Each student block: what it is made of, and the rule's reason."""
    rows = []
    for path, spans in made.stacks.items():
        why = proposed.why.get(path) or [""] * len(spans)
        for number, (span, reason) in enumerate(zip(spans, why, strict=True)):
            rows.append(
                {
                    "stack": path,
                    "block": number,
                    **span.as_yaml(),
                    "reason": "; ".join(filter(None, [*what_is(span), reason])),
                }
            )
    return rows


def what_is(span: Span) -> list[str]:
    """A student block in words."""
    how = [f"{len(span)} blocks in one, init {span.init}, gain {span.gain:g}"] * (len(span) > 1)
    how += [f"{span.stream}-stream"] * bool(span.stream) + [
        "without " + ", ".join(span.drop)
    ] * bool(span.drop)
    return how or ["kept as it is"]


def plan_info(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: plan, teacher (else the plan's), sensitivity (else the map the plan was made from,
    where it is known), against (a plan).
    """
    from ..surgery.settings import config_changes, needs_code

    loaded = Plan.load(spec["plan"])
    source = str(spec.get("teacher") or loaded.teacher)
    teacher = describe(source, context.store)
    found = map_for(teacher, spec.get("sensitivity"), context.store, needed=False)
    digest = loaded.origin.get("sensitivity")
    if found is None and digest:
        known = context.store.find("map", str(digest))
        found = SensitivityMap.load(known["path"]) if known else bundled_map(teacher)
    result = {
        "plan": str(spec["plan"]),
        "teacher": teacher.name,
        **plans.plan_info(loaded, teacher, found).to_json(),
        # a student's blocks may need code already
        "stock": not needs_code(config_changes(teacher.config, loaded)),
    }
    if spec.get("against"):
        result["difference"] = plans.difference(Plan.load(spec["against"]), loaded)
    yield Progress(step=1, total=1, result=result)


def is_quick(spec: PlanSpec) -> bool:
    """Whether the plan is made in seconds: its rule does not measure."""
    return not rule_measures(spec.rule, spec.recipe)


def rule_measures(rule: str | None, recipe: str | None) -> bool:
    """Whether a rule, or else the rule of a recipe, runs the teacher while it decides."""
    if rule is None and recipe is not None:
        rule = recipes.load(recipe).plan["rule"]
    return rule in rules.RULES and rules.RULES[rule].measures
