"""How much the teacher's answer changes under one edit of one block: the measurements behind a
sensitivity map.

`profile` measures on recorded transformer inputs (metrics prediction, influence, cka),
`profile_pictures` on finished pictures (metric image). METRICS says what each metric's numbers are
and which way they point.
"""

from __future__ import annotations

from .estimate import estimate, worked_out
from .importing import import_table
from .metrics import METRICS, Metric
from .naming import Edit, parse_edit
from .partial import finished_calls, identity, siblings
from .pictures import profile_pictures
from .profiling import metric_named, naive_profile, profile
from .recovery import Training
from .scan import Scan, relative_change
from .stability import stability

__all__ = [
    "METRICS",
    "Edit",
    "Metric",
    "Scan",
    "Training",
    "estimate",
    "finished_calls",
    "identity",
    "import_table",
    "metric_named",
    "naive_profile",
    "parse_edit",
    "profile",
    "profile_pictures",
    "relative_change",
    "siblings",
    "stability",
    "worked_out",
]
