"""Which sensitivity maps a rule can read."""

from __future__ import annotations

from collections.abc import Iterable

from ..records import BadInput, SensitivityMap, Teacher
from .base import Rule
from .table import RULES


def ranking_metrics() -> set[str]:
    """Metrics whose maps serve only the rules that are made for them."""
    return {rule.metric for _, rule in RULES.items() if rule.only_metric and rule.metric}


def reads(rule: Rule, metric: str, edits: Iterable[str]) -> bool:
    """Whether a rule reads a map of this metric with these edits: of its own metric, or any whose
    rows drop blocks or parts.
    """
    if rule.only_metric:
        return metric == rule.metric
    drops = any(edit.partition(":")[0] == "drop" for edit in edits)
    return drops and metric not in ranking_metrics()


def check_map(sensitivity: SensitivityMap | None, teacher: Teacher, rule: Rule) -> None:
    """Refuse a missing map, one of another teacher (by family and fingerprint), and one of a metric
    that the rule does not read.
    """
    flag = f" --metric {rule.metric}" if rule.only_metric else ""
    if sensitivity is None:
        raise BadInput(
            "no sensitivity map",
            f"a map of {teacher.name}",
            f"run `workbench profile{flag}` and pass --sensitivity map.json",
        )
    if not same_weights(sensitivity, teacher):
        measured_on = sensitivity.fingerprint or sensitivity.family
        raise BadInput(
            f"the map was measured on {sensitivity.teacher} ({measured_on})",
            f"a map of {teacher.name} ({teacher.fingerprint or teacher.family})",
            "profile this teacher",
        )
    if rule.only_metric and sensitivity.metric != rule.metric:
        raise BadInput(
            f"a map of metric {sensitivity.metric}",
            f"metric {rule.metric}",
            f"run `workbench profile{flag}`",
        )


def same_weights(sensitivity: SensitivityMap, teacher: Teacher) -> bool:
    """Whether a map may be of this teacher; a fingerprint that is not known excludes nothing."""
    if sensitivity.family != teacher.family:
        return False
    if not sensitivity.fingerprint or not teacher.fingerprint:
        return True
    return sensitivity.fingerprint == teacher.fingerprint
