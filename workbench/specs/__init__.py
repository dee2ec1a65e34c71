"""What each verb takes: one typed model per verb.

The command line, the app's forms, the functions of `workbench`, a job's spec.yaml and
docs/reference.md are all derived from these models (`facts`). A new option is one field here.
"""

from __future__ import annotations

from .base import Facts, VerbSpec, facts, option
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
from .table import VERBS, Verb, parse_spec

__all__ = [
    "VERBS",
    "BenchmarkSpec",
    "BuildSpec",
    "CompareSpec",
    "DemoSpec",
    "DistillVerbSpec",
    "Facts",
    "ImportMapSpec",
    "InfoSpec",
    "LoraSpec",
    "PlanInfoSpec",
    "PlanSpec",
    "ProfileSpec",
    "QuantizeSpec",
    "ReleaseSpec",
    "ReproduceSpec",
    "Verb",
    "VerbSpec",
    "facts",
    "option",
    "parse_spec",
]
