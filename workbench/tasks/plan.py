"""The verbs `plan` and `plan-info`: propose a plan, say what a plan costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import plans, rules
from ..plans.describe_span import span_words
from ..recipes import table as recipes
from ..recipes.recipe import Recipe
from ..records import BadInput, Plan, Progress, SensitivityMap, Span, Teacher
from ..rules import RULES, Budget, Rule
from ..specs import PlanInfoSpec, PlanSpec
from ..workspace.store import Store
from .context import Context
from .known_maps import bundled_map, named_map, newest_map, recorded_vectors
from .plan_measuring import plan_meter
from .resolve import Model, resolve

SIZE_HELP = "say how small: --keep 12, --keep STACK=12 or --budget params=0.5"


def plan(spec: PlanSpec, context: Context) -> Iterator[Progress]:
    """Let a rule, or a recipe's, decide what each student block is made of; writes the plan."""
    order = Order.read(spec, context)
    arguments = order.arguments()
    meter = None
    if order.rule.measures:
        meter = yield from plan_meter(order.spec, order.teacher, order.rule, context)
        arguments |= {"measure": meter.error, "settle": meter.settle}
    if order.rule.improves:
        start = order.start(context)
        arguments["start"] = start
        if order.budget.empty:
            arguments["keep"] = start.depth()
    proposed: rules.Proposed | None = None
    for progress in order.proposing(arguments):
        if progress.result is not None:
            proposed = progress.result
        else:
            yield progress
            if context.stop():
                return
    assert proposed is not None
    chosen = proposed.plan
    if spec.free_cuts:
        chosen = plans.check(plans.cut_free(chosen, order.teacher), order.teacher)
    out = save(chosen, order, context)
    info = plans.plan_info(chosen, order.teacher, order.sensitivity, tokens=order.tokens)
    result = {"plan": str(out), **info.to_json(), "rule": order.name}
    result["spans"] = [asdict(row) | made_of for row, made_of in span_rows(chosen, proposed.why)]
    if meter is not None:
        result["measured_error"] = meter.error(chosen)
        result["measured_plans"] = len(meter.measured)
    yield Progress(step=1, total=1, result=result)


def save(chosen: Plan, order: Order, context: Context) -> Path:
    """Write the plan where the spec says, or into the workspace."""
    name = order.recipe.name if order.recipe else order.name
    depth = sum(chosen.depth().values())
    if order.spec.out:
        out = Path(order.spec.out)
    else:
        out = context.store.out("plan", f"{name}-{depth}", ".yaml")
    chosen.save(out)
    context.store.add("plan", out)
    return out


@dataclass(frozen=True)
class Order:
    """A plan spec, resolved and checked once: teacher, recipe, rule, budget and map.

    name: of the rule. student: whether the teacher is itself a student. budget: empty where the
    recipe or a plan to start from says the size.
    """

    spec: PlanSpec
    model: Model
    recipe: Recipe | None
    name: str
    budget: Budget
    sensitivity: SensitivityMap | None = None

    @classmethod
    def read(cls, spec: PlanSpec, context: Context) -> Order:
        """Resolve the teacher, the recipe, the rule, the size and the map. Raises BadInput."""
        model = resolve(spec.teacher, context.store, weights=False)
        recipe = recipes.load(spec.recipe) if spec.recipe else None
        name = spec.rule or "uniform"
        if recipe is not None and not spec.rule:
            name = recipe.settings(model.card is not None).rule
        if spec.start and measures(spec.start):
            raise BadInput(
                f"--start {spec.start}",
                "a plan file, or a rule that does not measure",
                f"write its plan first: --rule {spec.start} -o plan.yaml",
            )
        budget = budget_of(spec, RULES[name], model.description)
        if spec.conditioning is None:
            vectors = recorded_vectors(model.description, context.store)
            spec = spec.model_copy(update={"conditioning": vectors})
        order = cls(spec, model, recipe, name, budget)
        return replace(order, sensitivity=order.find_map(context))

    @property
    def rule(self) -> Rule:
        """The row of the rule."""
        return RULES[self.name]

    @property
    def teacher(self) -> Teacher:
        """What the teacher is made of."""
        return self.model.description

    @property
    def student(self) -> bool:
        """Whether the teacher is itself a student."""
        return self.model.card is not None

    @property
    def tokens(self) -> plans.Tokens:
        """Sequence lengths at the size of the spec, else of the teacher."""
        return plans.tokens_of(self.teacher, self.spec.size)

    def arguments(self) -> dict[str, Any]:
        """The size and the settings, as arguments of `rules.proposing`."""
        arguments = rules.settings_of(self.spec, self.teacher)
        if not self.budget.empty:
            arguments["budget"] = self.budget
            if self.budget.keep is not None:
                arguments["keep"] = self.budget.keep
        if self.modulation_rank == "auto":
            arguments["smallest_rank"] = self.smallest_rank
        return arguments

    @property
    def modulation_rank(self) -> int | str | None:
        """The rank of the spec, else of the recipe."""
        if self.spec.modulation_rank is not None or self.recipe is None:
            return self.spec.modulation_rank
        return self.recipe.settings(self.student).modulation_rank

    def smallest_rank(self) -> int:
        """The rank that `auto` stands for, from one pass over the teacher's modulation weights."""
        from ..sensitivity.modulation import BOUND, smallest_rank

        bound = self.spec.modulation_error or BOUND
        model = resolve(self.spec.teacher, self.model.store)
        return smallest_rank(model.folder, self.teacher, bound, self.spec.conditioning)

    def check_rank(self) -> None:
        """Raises BadInput where ranks of modulation are measured, and the conditioning depends on
        more than the timestep and was not recorded.
        """
        from ..sensitivity.modulation import check_conditioning

        as_edit = "modulation" in (self.spec.edits or ())
        measured = self.rule.measures and (as_edit or self.modulation_rank is not None)
        if measured or self.modulation_rank == "auto":
            check_conditioning(self.teacher, self.spec.conditioning)

    def proposing(self, arguments: dict[str, Any]) -> Iterator[Progress]:
        """Let the recipe or the rule decide."""
        if self.recipe is None:
            return rules.proposing(
                self.name, self.teacher, sensitivity=self.sensitivity, **arguments
            )
        return self.recipe.proposing(
            self.teacher, self.sensitivity, self.student, rule=self.spec.rule, **arguments
        )

    def find_map(self, context: Context) -> SensitivityMap | None:
        """The map of the spec; else, where the rule needs one, the workspace's newest that it can
        read, else the bundled one.
        """
        if self.spec.sensitivity:
            return named_map(self.spec.sensitivity, context.store)
        # a released list is the plan, and its map was another's
        if not self.rule.needs_map or self.follows_list():
            return None
        return newest_map(self.teacher, context.store, partial(rules.reads, self.rule))

    def follows_list(self) -> bool:
        """Whether the plan is a list that the authors of the recipe released for this teacher."""
        if self.recipe is None or self.spec.rule or not self.budget.empty:
            return False
        return self.recipe.released(self.teacher, self.student) is not None

    def start(self, context: Context) -> Plan:
        """The plan that a rule improves: a file, or another rule's for the same budget."""
        source = self.spec.start or "uniform"
        if source not in RULES:
            return plans.check(Plan.load(source), self.teacher)
        update = {"rule": source, "recipe": None}
        other = Order.read(self.spec.model_copy(update=update), context)
        taken = {*RULES[source].options, "keep", "budget", "smallest_rank"}
        arguments = {name: value for name, value in other.arguments().items() if name in taken}
        return rules.propose(source, self.teacher, sensitivity=other.sensitivity, **arguments)


def budget_of(spec: PlanSpec, rule: Rule, teacher: Teacher) -> Budget:
    """The size that a spec says; empty where the recipe or a plan to start from says it."""
    if spec.keep is not None and spec.budget is not None and not rule.keep_and_budget:
        raise BadInput("both --keep and --budget", "one of them", SIZE_HELP)
    from_plan = rule.improves and spec.start is not None and spec.start not in RULES
    if spec.keep is None and spec.budget is None and spec.recipe is None and not from_plan:
        raise BadInput("neither --keep nor --budget", "one of them", SIZE_HELP)
    keep = None if spec.keep is None else counts(teacher, spec.keep)
    return Budget.parse(spec.budget, keep, plans.tokens_of(teacher, spec.size))


def counts(teacher: Teacher, keep: int | dict[str, int]) -> dict[str, int]:
    """Blocks to keep per stack, from a number, or stack -> number."""
    if isinstance(keep, dict):
        return {teacher.stack(path).path: count for path, count in keep.items()}
    if len(teacher.stacks) > 1:
        paths = [stack.path for stack in teacher.stacks]
        raise BadInput(
            f"--keep {keep} for {len(paths)} stacks",
            "a number for each: " + ", ".join(paths),
            f"write --keep {paths[0]}={keep},..",
        )
    return {teacher.stacks[0].path: keep}


@dataclass(frozen=True)
class SpanRow:
    """A student block and why it is so."""

    stack: str
    block: int
    reason: str


def span_rows(chosen: Plan, why: dict[str, list[str]]) -> Iterator[tuple[SpanRow, dict[str, Any]]]:
    """Each student block with the rule's reason, and what it is made of as in a plan file."""
    for path, spans in chosen.stacks.items():
        reasons = why.get(path) or [""] * len(spans)
        for number, (span, reason) in enumerate(zip(spans, reasons, strict=True)):
            words = [words for words in (what_is(span), reason) if words]
            yield SpanRow(path, number, "; ".join(words)), span.as_yaml()


def what_is(span: Span) -> str:
    """A student block in words."""
    if span.plain:
        return "kept as it is"
    words = span_words(span)
    if len(span) > 1:
        words.insert(0, f"{len(span)} blocks in one")
    return ", ".join(words)


def plan_info(spec: PlanInfoSpec, context: Context) -> Iterator[Progress]:
    """What a plan costs, by the map of the spec, else the one that the plan was made from."""
    from ..surgery.student_config import config_changes, needs_code

    chosen = Plan.load(spec.plan)
    model = resolve(spec.teacher or chosen.teacher, context.store, weights=False)
    teacher = model.description
    sensitivity = map_of(chosen, spec, teacher, context.store)
    result = {
        "plan": spec.plan,
        "teacher": teacher.name,
        **plans.plan_info(chosen, teacher, sensitivity).to_json(),
        # a student's blocks may need code already
        "stock": not needs_code(config_changes(teacher.config, chosen)),
    }
    if spec.against:
        result["difference"] = plans.difference(Plan.load(spec.against), chosen)
    yield Progress(step=1, total=1, result=result)


def map_of(
    chosen: Plan, spec: PlanInfoSpec, teacher: Teacher, store: Store
) -> SensitivityMap | None:
    """The map of the spec, else the one that the plan was made from, else, where that one is not
    in the workspace, the bundled one. None for a plan that was made without a map.
    """
    if spec.sensitivity:
        return named_map(spec.sensitivity, store)
    digest = chosen.origin.get("sensitivity")
    if not digest:
        return None
    known = store.find("map", str(digest))
    return SensitivityMap.load(known.path) if known else bundled_map(teacher)


def is_quick(spec: PlanSpec) -> bool:
    """Whether the plan is made in seconds: its rule does not measure."""
    return not rule_measures(spec.rule, spec.recipe)


def rule_measures(rule: str | None, recipe: str | None) -> bool:
    """Whether a rule, or else the rule of a recipe, runs the teacher while it decides."""
    if rule is None and recipe is not None:
        rule = recipes.load(recipe).plan.rule
    return rule is not None and measures(rule)


def measures(rule: str) -> bool:
    """Whether this is a rule that runs the teacher while it decides."""
    return rule in RULES and RULES[rule].measures
