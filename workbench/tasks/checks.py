"""What each verb refuses before a job is made, so that a typing error costs seconds and no job.

Nothing is loaded, fetched or written here. A model that is still on the Hub is known by its headers
alone; what only its files can say is left to the job.
"""

from __future__ import annotations

from pathlib import Path

from .. import plans, rules
from ..models import transformer_folder
from ..models.quantized.stored import check_unquantized
from ..models.recorded_calls import check_inputs as check_recorded
from ..records import BadInput, Plan
from ..rules.proposing import check_options
from ..sensitivity.edits import parse_edits
from ..sensitivity.table import METRICS
from ..specs import (
    BuildSpec,
    CompareSpec,
    DemoSpec,
    DistillVerbSpec,
    ImportMapSpec,
    PlanSpec,
    ProfileSpec,
    ReproduceSpec,
)
from ..surgery.target import check_target
from .compare import request_of
from .compare_checks import check_model, check_out
from .context import Context
from .distill_work import DistillWork, stages_of
from .plan import Order
from .profile import check as check_profile_options
from .profile import check_race
from .prompts import check_inputs, read_prompts
from .reproduce.tables import check_row_names, choose_tables
from .resolve import Model, resolve


def check_build(spec: BuildSpec, context: Context) -> None:
    """The plan, its teacher, the plan against the teacher, and the output."""
    plan = Plan.load(spec.plan)
    teacher = with_weights(spec.teacher or plan.teacher, context)
    plans.check(plan, teacher.description)
    if teacher.path is not None and teacher.has_weights:
        check_unquantized(transformer_folder(teacher.path), teacher.name, "build from")
    if spec.out and teacher.path is not None:
        check_target(Path(spec.out).absolute(), teacher.path)


def check_profile(spec: ProfileSpec, context: Context) -> None:
    """The teacher, the metric, the edits, options that do not go together, and the output."""
    metric = METRICS[spec.metric]
    check_profile_options(spec, metric)
    check_file(spec.out)
    teacher = with_weights(spec.teacher, context)
    edits = parse_edits(spec.edits or metric.edits, teacher.description)
    check_race(spec, metric, teacher.description, edits)
    check_sources(spec.prompts, spec.inputs)


def check_plan(spec: PlanSpec, context: Context) -> None:
    """The teacher, the recipe, the rule, the size, the map, the settings, and the files."""
    check_file(spec.out)
    check_inputs(spec.inputs, spec.prompts)
    order = Order.read(spec, context)
    settings = rules.Settings.parse(rules.settings_of(spec, order.teacher))
    if spec.timestep_weight is not None:
        plans.check_weighting(spec.timestep_weight)
    if order.recipe is None:
        check_options(order.name, settings)
    check_sources(spec.prompts, spec.inputs)
    order.check_rank()
    if order.rule.improves:
        order.start(context)


def check_import_map(spec: ImportMapSpec, context: Context) -> None:
    """The output."""
    check_file(spec.out)


def check_distill(spec: DistillVerbSpec, context: Context) -> None:
    """The student and where it comes from, the stages, the data, and the output."""
    if spec.estimate and spec.devices:  # of a plan, perhaps
        stages_of(spec)
        return
    if spec.devices:
        raise BadInput(
            f"--for {spec.devices} without --estimate", "both", "add --estimate, or leave --for out"
        )
    if spec.trackers:
        from .trackers import check_trackers  # imports accelerate's trackers: a second

        check_trackers(spec.trackers)
    check_sources(spec.prompts, None)
    student = with_weights(spec.student, context)
    if student.card is None or may_be_here(student.card.teacher, context):
        DistillWork.of(spec, context)  # also refuses what is not a student
    else:
        stages_of(spec)


def check_compare(spec: CompareSpec, context: Context) -> None:
    """The models, the suite, the scorers, the names, and the output."""
    for model in spec.models:
        with_weights(model, context)
    if all(is_here(model, context) for model in spec.models):
        request_of(spec, context)


def check_reproduce(spec: ReproduceSpec, context: Context) -> None:
    """The table and its rows."""
    check_row_names(choose_tables(spec.table), spec.only or [])


def check_demo(spec: DemoSpec, context: Context) -> None:
    """The installation and the output."""
    if spec.out:
        check_out(Path(spec.out).absolute())
    check_model("demo", context)


def with_weights(source: str, context: Context) -> Model:
    """The model, without fetching it. Raises BadInput where there is none, for a config without
    weights, and for a Hub that does not answer.
    """
    model = resolve(source, context.store, weights=False)
    if model.kind == "config":
        return resolve(source, context.store)  # says what it lacks
    if not model.has_weights:
        _ = model.description
    return model


def is_here(source: str, context: Context) -> bool:
    """Whether the model's weights are on this machine."""
    return resolve(source, context.store, weights=False).has_weights


def may_be_here(teacher: str, context: Context) -> bool:
    """The same of a teacher that may have moved since: its student's lineage looks for it."""
    try:
        return is_here(teacher, context)
    except BadInput:
        return True


def check_sources(prompts: str | None, inputs: str | None) -> None:
    """Refuse a file of prompts, or of recorded inputs, that is not one."""
    if prompts:
        read_prompts(prompts)
    if inputs:
        check_recorded(inputs)


def check_file(out: str | None) -> None:
    """Refuse a folder, or a device or pipe, where a file is to be written."""
    if out is None or not Path(out).exists():
        return
    if Path(out).is_dir():
        raise BadInput(f"-o {out} is a folder", "a file to write", "add a file name")
    if not Path(out).is_file():
        raise BadInput(f"-o {out} is not a regular file", "a file to write", "choose another -o")
