"""The verbs: one row each. A verb is a spec and a generator; every verb can run as a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..plugins import Registry, registry
from ..records import BadInput
from .base import VerbSpec
from .benchmark import BenchmarkSpec
from .build import BuildSpec
from .compare import CompareSpec
from .demo import DemoSpec
from .distill import DistillVerbSpec
from .import_map import ImportMapSpec
from .info import InfoSpec
from .lora import LoraSpec
from .plan import PlanInfoSpec, PlanSpec
from .profile import ProfileSpec
from .quantize import QuantizeSpec
from .release import ReleaseSpec
from .reproduce import ReproduceSpec


@dataclass(frozen=True)
class Verb:
    """One row of the table of verbs.

    spec: what it takes. run: "module:function" of its generator, `run(spec, context)`, imported
    when it runs. check: "module:function" of `check(spec, context)`, which raises BadInput for what
    can be refused before a job is made. quick: answered in seconds, so that a run in the foreground
    leaves no job. A "module:function" decides from the spec. requests: what a running job of it can
    be asked for: "save" (a checkpoint now), "sample" (pictures now); it looks by
    `context.requested(name)`. part: "module:function" of `part(spec, context, number, count)`, one
    of the tasks of a cluster's array, for a verb whose spec has `processes` and whose tasks need
    not run at once; the last of them to end gives the result, the others None in each of its keys.
    """

    spec: type[VerbSpec]
    run: str
    check: str = ""
    quick: bool | str = False
    requests: tuple[str, ...] = ()
    part: str = ""

    @property
    def about(self) -> str:
        """The first paragraph of the spec's docstring, on one line."""
        first, _, _ = (self.spec.__doc__ or "").strip().partition("\n\n")
        return " ".join(first.split())


CHECKS = "workbench.tasks.checks:"
RELEASE_CHECK = "workbench.tasks.release:check_release"
ROWS: dict[str, Verb] = {
    "info": Verb(InfoSpec, "workbench.tasks.info:info", quick=True),
    "profile": Verb(
        ProfileSpec,
        "workbench.tasks.profile:profile",
        CHECKS + "check_profile",
        part="workbench.tasks.profile_array:profile_part",
    ),
    "import-map": Verb(
        ImportMapSpec,
        "workbench.tasks.import_map:import_map",
        CHECKS + "check_import_map",
        quick=True,
    ),
    "plan": Verb(
        PlanSpec,
        "workbench.tasks.plan:plan",
        CHECKS + "check_plan",
        quick="workbench.tasks.plan:is_quick",
    ),
    "plan-info": Verb(PlanInfoSpec, "workbench.tasks.plan:plan_info", quick=True),
    "build": Verb(BuildSpec, "workbench.tasks.build:build", CHECKS + "check_build"),
    "distill": Verb(
        DistillVerbSpec,
        "workbench.tasks.distill:distill",
        CHECKS + "check_distill",
        requests=("save", "sample"),
    ),
    "quantize": Verb(
        QuantizeSpec, "workbench.tasks.quantize:quantize", "workbench.tasks.quantize:check_quantize"
    ),
    "compare": Verb(CompareSpec, "workbench.tasks.compare:compare", CHECKS + "check_compare"),
    "benchmark": Verb(
        BenchmarkSpec,
        "workbench.tasks.benchmark:benchmark",
        "workbench.tasks.benchmark:check_benchmark",
    ),
    "reproduce": Verb(
        ReproduceSpec, "workbench.tasks.reproduce.run:reproduce", CHECKS + "check_reproduce"
    ),
    "release": Verb(ReleaseSpec, "workbench.tasks.release:release", RELEASE_CHECK),
    "lora": Verb(
        LoraSpec, "workbench.tasks.lora:lora", "workbench.tasks.lora:check_lora", quick=True
    ),
    "demo": Verb(DemoSpec, "workbench.tasks.demo:demo", CHECKS + "check_demo"),
}
VERBS: Registry[Verb] = registry("verb")


def parse_spec(verb: str, data: Any, source: str = "") -> VerbSpec:
    """A verb's spec from plain data. Raises BadInput for an unknown verb, key or wrong value."""
    if not isinstance(data, dict):
        raise BadInput(f"{source or verb} is {type(data).__name__}", "keys and values", "fix it")
    return VERBS[verb].spec.parse(data, source)
