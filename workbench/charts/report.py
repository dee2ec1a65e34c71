"""A report of comparisons: one page without other files, and one table in Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..records import Comparison, Difference, ModelResult, Score
from .losses import lost_rows, worst_rows
from .students import student_chart, student_rows, usual_scorer

WORST = 12  # pictures of the gallery, of each comparison
SIDE = 320  # pixels of a picture on the page, at most
Cells = list[str]


@dataclass(frozen=True)
class Source:
    """A comparison and the folder that its pictures are relative to."""

    folder: Path
    comparison: Comparison

    @classmethod
    def load(cls, folder: Path) -> Source:
        """Raises BadInput for a folder without a comparison."""
        return cls(folder, Comparison.load(folder / "comparison.json"))


def report_html(sources: Sequence[Source], count: int = WORST) -> str:
    """The page: all students in one table, cost against score, and for each comparison the worst
    differences first and what was lost by category. Pictures and drawings are inside.
    """
    source = (resources.files("workbench.charts") / "report.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    comparisons = [source.comparison for source in sources]
    head, rows = table_of(comparisons)
    parts = []
    for each in sources:
        worst = [with_pictures(row, each) for row in worst_rows(each.comparison, count)]
        part = {"c": each.comparison, "worst": worst, "lost": lost_rows(each.comparison)}
        parts.append({**part, "setting": setting_of(each.comparison)})
    return environment.from_string(source).render(
        head=head, rows=rows, parts=parts, drawings=drawings(comparisons)
    )


def report_markdown(comparisons: Sequence[Comparison]) -> str:
    """The table of all models, and what was lost by category."""
    head, rows = table_of(comparisons)
    lines = ["# Comparison", "", *(setting_of(each) for each in comparisons), ""]
    lines += markdown_table(head, rows)
    for each in comparisons:
        lost = lost_rows(each)
        if lost:
            lines += ["", f"What was lost by category, {each.suite}, the largest loss first:", ""]
            lines += markdown_table(*lost_table(lost))
    return "\n".join(lines) + "\n"


# --- tables ---------------------------------------------------------------------------------------


def table_of(comparisons: Sequence[Comparison]) -> tuple[Cells, list[Cells]]:
    """The head and the rows of one table of all models; a model of several comparisons is in it
    once for each.
    """
    labels: dict[str, None] = {}
    for comparison in comparisons:
        for model in comparison.models:
            labels |= dict.fromkeys(model.scores)
    head = ["model", "parameters", "share", "ms per step", "speed-up"]
    for label in labels:
        head += [label, "difference", "kept"]
    rows = []
    for comparison in comparisons:
        for model in comparison.models:
            rows.append(row_of(model, comparison.models[0], list(labels)))
    return head, rows


def row_of(model: ModelResult, first: ModelResult, labels: Sequence[str]) -> Cells:
    cells = [
        model.name,
        f"{model.parameters / 1e6:.2f} M",
        f"{100 * model.parameters / first.parameters:.0f} %",
        f"{model.ms_per_step:.2f}",
        f"{first.ms_per_step / model.ms_per_step:.2f}×" if model.ms_per_step else "–",
    ]
    for label in labels:
        cells.append(score_text(model.scores.get(label)))
        cells.append(difference_text(model.difference.get(label)))
        cells.append(share_text(model, label))
    return cells


def share_text(model: ModelResult, label: str) -> str:
    share = model.retention.get(label)
    if share is None:
        return "–"
    low, high = model.retention_intervals.get(label, (None, None))
    if low is None or high is None:
        return f"{100 * share:.1f} %"
    return f"{100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def score_text(score: Score | None) -> str:
    if score is None:
        return "–"
    return f"{score.overall:.3g}{interval_text(score.low, score.high)}"


def difference_text(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    return f"{difference.mean:+.3g}{interval_text(difference.low, difference.high, '+')}"


def interval_text(low: float | None, high: float | None, sign: str = "") -> str:
    if low is None or high is None:
        return ""
    return f" [{low:{sign}.3g}, {high:{sign}.3g}]"


def lost_table(lost: Sequence[dict[str, Any]]) -> tuple[Cells, list[Cells]]:
    head = ["scorer", "category", "model", "first model", "score", "lost"]
    rows = []
    for row in lost:
        score = f"{row['score']:.3g}{interval_text(row['low'], row['high'])}"
        names = [row["scorer"], row["category"], row["model"]]
        rows.append([*names, f"{row['first']:.3g}", score, f"{row['lost']:+.3g}"])
    return head, rows


def markdown_table(head: Cells, rows: Sequence[Cells]) -> list[str]:
    lines = [markdown_row(head), markdown_row(["---"] * len(head))]
    return lines + [markdown_row(row) for row in rows]


def markdown_row(cells: Cells) -> str:
    """A row; a `|` in a name does not end its cell."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def setting_of(comparison: Comparison) -> str:
    """How the pictures were sampled and how intervals were made, in a sentence or two."""
    c = comparison
    seeds = f"{len(c.seeds)} seed{'s' if len(c.seeds) > 1 else ''}"
    return (
        f"Suite {c.suite}: {len(c.prompts)} prompts × {seeds}, {c.steps} steps, guidance "
        f"{c.guidance:g}, {c.size} px. The first model is {c.models[0].name}; differences are paired "
        "by prompt and seed, intervals are of 95 %."
    )


# --- drawings and pictures ------------------------------------------------------------------------


def drawings(comparisons: Sequence[Comparison]) -> list[str]:
    """Size and time against score, as SVG; none where there is no common scorer."""
    if not usual_scorer(comparisons):
        return []
    rows = student_rows(*comparisons)
    pictures = []
    for cost in ("parameters", "time"):
        chart = student_chart(rows, cost=cost)
        pictures.append(vl_convert.vegalite_to_svg(chart.to_json()))
    return pictures


def with_pictures(row: dict[str, Any], source: Source) -> dict[str, Any]:
    """A row of the gallery with the first model's picture and the student's, as data addresses."""
    files = source.comparison.images
    first = source.comparison.models[0].name
    pictures = []
    for name in (first, row["model"]):
        names = files.get(name) or []
        file = names[row["at"]] if row["at"] < len(names) else ""
        pictures.append((name, data_address(source.folder, file)))
    return {**row, "pictures": pictures}


def data_address(folder: Path, name: str) -> str:
    """A picture, made small, as the address of an image; "" where it is missing or lies outside."""
    path = (folder / name).resolve()
    if not name or not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ""
    image = Image.open(path).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
