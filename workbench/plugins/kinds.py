"""What can be added from outside: one line per kind of row.

home: where the built-in rows are, a mapping of name -> row (or Lazy row). Importing it must not
import torch, since forms and --help list its names. row_type: what a row must be.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of row. `plural` names the entry point group: workbench.<plural>."""

    plural: str
    home: str
    row_type: str


KINDS: dict[str, Kind] = {
    "family": Kind(
        "families", "workbench.families.table:ROWS", "workbench.families.row_types:Family"
    ),
    "metric": Kind(
        "metrics", "workbench.sensitivity.table:METRIC_ROWS", "workbench.sensitivity.table:Metric"
    ),
    "edit": Kind(
        "edits", "workbench.sensitivity.table:EDIT_ROWS", "workbench.sensitivity.table:EditKind"
    ),
    "rule": Kind("rules", "workbench.rules.table:ROWS", "workbench.rules.base:Rule"),
    "loss": Kind(
        "losses", "workbench.training.loss_table:ROWS", "workbench.training.loss_table:LossTerm"
    ),
    "scorer": Kind(
        "scorers",
        "workbench.comparison.scorers.table:ROWS",
        "workbench.comparison.scorers.base:Scorer",
    ),
    "benchmark": Kind(
        "benchmarks",
        "workbench.comparison.benchmarks.table:ROWS",
        "workbench.comparison.benchmarks.base:Benchmark",
    ),
    "data_source": Kind(
        "data_sources",
        "workbench.training.data_sources:ROWS",
        "workbench.training.data_sources:DataSource",
    ),
    "chart": Kind("charts", "workbench.charts.table:ROWS", "workbench.charts.table:Chart"),
    "recipe": Kind("recipes", "workbench.recipes.table:ROWS", "workbench.recipes.recipe:Recipe"),
    "engine": Kind(
        "engines",
        "workbench.workspace.cluster.table:ROWS",
        "workbench.workspace.cluster.table:Engine",
    ),
    "runtime": Kind(
        "runtimes",
        "workbench.families.runtimes:ROWS",
        "workbench.families.runtimes:Runtime",
    ),
    "verb": Kind("verbs", "workbench.specs.table:ROWS", "workbench.specs.table:Verb"),
}
