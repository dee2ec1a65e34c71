"""Charts as data first, figure second: `*_rows(record)` is plain rows, `*_chart(rows)` an Altair
chart of them.

Blocks run along x in teacher order, all stacks on one axis: `at` is a block's place on it. The app
and the notebook draw the same charts; the map's named datasets (`bars`, `weights`, `marks`,
`ribbons`, `student`) are fed without drawing it again. table.py lists the charts by name.
"""

from . import quick_start as _quick_start  # noqa: F401  (first: before Altair is imported)
from .axis import COLOURS, WIDTH, Rows, number, offsets
from .curve import curve_chart, curve_colours, curve_rows, curve_series
from .heatmap import sensitivity_chart
from .losses import lost_rows, worst_rows
from .map_difference import (
    correlation_chart,
    correlation_rows,
    difference_chart,
    difference_rows,
    spearman,
)
from .map_rows import bar_rows, bar_scales, sensitivity_rows, weight_rows
from .one_block import (
    breakdown_chart,
    breakdown_rows,
    part_chart,
    part_rows,
    profile_chart,
    profile_rows,
)
from .plan import made_of, plan_picture_chart, plan_picture_rows, plan_rows
from .recovery import recovery_chart, recovery_rows, stages
from .results import cost_rows, score_chart, score_rows
from .shapes import reading, time_label
from .students import student_chart, student_rows, usual_scorer
from .table import CHARTS, Chart, draw

__all__ = [
    "CHARTS",
    "COLOURS",
    "WIDTH",
    "Chart",
    "Rows",
    "bar_rows",
    "bar_scales",
    "breakdown_chart",
    "breakdown_rows",
    "correlation_chart",
    "correlation_rows",
    "cost_rows",
    "curve_chart",
    "curve_colours",
    "curve_rows",
    "curve_series",
    "difference_chart",
    "difference_rows",
    "draw",
    "lost_rows",
    "made_of",
    "number",
    "offsets",
    "part_chart",
    "part_rows",
    "plan_picture_chart",
    "plan_picture_rows",
    "plan_rows",
    "profile_chart",
    "profile_rows",
    "reading",
    "recovery_chart",
    "recovery_rows",
    "score_chart",
    "score_rows",
    "sensitivity_chart",
    "sensitivity_rows",
    "spearman",
    "stages",
    "student_chart",
    "student_rows",
    "time_label",
    "usual_scorer",
    "weight_rows",
    "worst_rows",
]
