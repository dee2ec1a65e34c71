"""What a reproduction reports: its rows, who is first and by how much, a page, Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ...comparison.statistics import paired_difference
from ...records import Comparison, Difference, write_atomic
from ..demo import items_of
from .table import OURS, Group, Table

PICTURES = 5  # beside each row


@dataclass(frozen=True)
class Result:
    """A student's figures. difference: to the teacher, pair by pair of the same prompts and seeds.

    behind: what the best row of the same comparison has more than this one, in the same way; None
    for the best itself.
    """

    table: str
    group: str
    row: str
    teacher: str
    parameters: int
    ratio: float  # of the teacher's parameters
    score: float
    low: float | None
    high: float | None
    retention: float | None
    teacher_score: float
    retention_interval: tuple[float, float] | None = None
    guidance_gap: float | None = None  # over the teacher's; 1 = the same, below 1 = collapsed
    difference: Difference | None = None
    behind: Difference | None = None

    def to_data(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        data = asdict(self)
        for key, value in data.items():
            if isinstance(value, Difference):
                data[key] = value.model_dump()
        return data


@dataclass(frozen=True)
class GroupReport:
    """A group with what became of its rows.

    races: the results of each comparison: the group's own, then that of the finals, whose rows
    trained longer. comparisons: their files.
    """

    group: Group
    races: list[list[Result]]
    comparisons: list[Path] = field(default_factory=list)

    @property
    def results(self) -> list[Result]:
        return list(chain.from_iterable(self.races))


def read_group(table: str, group: Group, files: Sequence[Path]) -> GroupReport:
    races = [race_of(table, group, Comparison.load(file)) for file in files]
    return GroupReport(group, races, list(files))


def race_of(table: str, group: Group, comparison: Comparison) -> list[Result]:
    """The students of a comparison, which begins with the teacher."""
    teacher, *students = comparison.models
    best = max(students, key=lambda model: model.scores["scenes"].overall)
    items = items_of(comparison)
    results = []
    for model in students:
        score = model.scores["scenes"]
        top = best.scores["scenes"].per_image
        behind = None
        if model is not best and top is not None and score.per_image is not None:
            behind = paired_difference(top, score.per_image, items)
        result = Result(
            table=table,
            group=group.name,
            row=model.name,
            teacher=group.teacher,
            parameters=model.parameters,
            ratio=model.parameters / teacher.parameters,
            score=score.overall,
            low=score.low,
            high=score.high,
            retention=model.retention["scenes"],
            teacher_score=teacher.scores["scenes"].overall,
            retention_interval=model.retention_intervals.get("scenes"),
            guidance_gap=model.guidance_gap,
            difference=model.difference.get("scenes"),
            behind=behind,
        )
        results.append(result)
    return results


def verdict(race: Sequence[Result]) -> str:
    """Who is first, and over which rows its lead is not significant: those whose paired difference
    to it, over the same prompts and seeds, has a 95 % interval that includes 0. Empty without a row
    of ours.
    """
    ranked = sorted(race, key=lambda result: -result.score)
    if len(ranked) < 2 or not any(result.row.startswith(OURS) for result in ranked):
        return ""
    first, others = ranked[0], ranked[1:]
    level = [result for result in others if not is_behind(result)]
    if level:
        return f"{first.row} is first, but not significantly ahead of {in_words(level)}."
    return f"{first.row} is first, ahead of {in_words(others[:1])}."


def is_behind(result: Result) -> bool:
    return result.behind is not None and result.behind.significant


def in_words(results: Sequence[Result]) -> str:
    """Rows with how far they are behind the best one."""
    return ", ".join(f"{result.row} ({distance(result)})" for result in results)


def distance(result: Result) -> str:
    behind = result.behind
    if behind is None or behind.low is None or behind.high is None:
        return f"{result.score:.3f}"
    mean, low, high = 0.0 - behind.mean, 0.0 - behind.high, 0.0 - behind.low
    return f"{mean:+.3f}, {low:+.3f} to {high:+.3f}"


# --- the page -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """src: its address from the report's folder."""

    src: str
    prompt: str


def picture_strips(out: Path, files: Iterable[Path]) -> dict[str, list[Picture]]:
    """Model -> a few of its pictures, from all kinds of prompts; the teacher's first."""
    strips: dict[str, list[Picture]] = {}
    for file in files:
        comparison = Comparison.load(file)
        folder = file.parent.relative_to(out)
        numbers = evenly(len(comparison.prompts), PICTURES)
        seeds = len(comparison.seeds)
        for name, images in comparison.images.items():
            strip = [
                Picture((folder / images[number * seeds]).as_posix(), comparison.prompts[number])
                for number in numbers
            ]
            strips.setdefault(name, strip)
    return strips


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly."""
    numbers = [count * (2 * i + 1) // (2 * most) for i in range(most)]
    return list(dict.fromkeys(numbers))


def write_page(
    out: Path, tables: Mapping[str, Table], reports: Mapping[str, list[GroupReport]], minutes: float
) -> Path:
    """One HTML page without outside requests, and the same as Markdown and JSON. reports: those of
    each table.
    """
    source = (resources.files("workbench.tasks.reproduce") / "page.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(source).render(
        tables=tables,
        reports=reports,
        minutes=minutes,
        verdict=verdict,
        share_text=share_text,
        links=lambda report: page_links(out, report),
        strips=lambda report: picture_strips(out, report.comparisons),
    )
    write_atomic(out / "index.html", page)
    rows = [result.to_data() for result in all_results(reports)]
    write_atomic(out / "rows.json", json.dumps({"rows": rows}, indent=1) + "\n")
    write_atomic(out / "results.md", markdown(tables, reports))
    return out / "index.html"


def all_results(reports: Mapping[str, list[GroupReport]]) -> list[Result]:
    results: list[Result] = []
    for of_table in reports.values():
        for report in of_table:
            results += report.results
    return results


def page_links(out: Path, report: GroupReport) -> list[str]:
    """The pages of a group's comparisons, from the report's folder."""
    pages = [file.with_name("index.html") for file in report.comparisons]
    return [page.relative_to(out).as_posix() for page in pages]


def markdown(tables: Mapping[str, Table], reports: Mapping[str, list[GroupReport]]) -> str:
    """The tables as Markdown, for docs/results.md."""
    lines: list[str] = []
    for name, table in tables.items():
        paper = f" (arXiv {table.paper})" if table.paper else ""
        lines += [f"### {table.title}{paper}", ""]
        for report in reports[name]:
            lines += group_markdown(report)
    return "\n".join(lines)


def share_text(result: Result) -> str:
    """The share of the teacher's score, with its interval where there is one."""
    if result.retention is None:
        return ""
    text = f"{100 * result.retention:.1f} %"
    if result.retention_interval is None:
        return text
    low, high = result.retention_interval
    return f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


def group_markdown(report: GroupReport) -> list[str]:
    results = report.results
    group = report.group
    lines = [
        f"**{group.name}** of `{group.teacher}`, which scores {results[0].teacher_score:.3f}.",
        "",
        "| row | parameters | share | score | 95 % interval | of the teacher | guidance gap |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        cells = (
            result.row,
            f"{result.parameters / 1e6:.2f} M",
            f"{100 * result.ratio:.1f} %",
            f"{result.score:.3f}",
            f"{result.low:.3f} to {result.high:.3f}" if result.low is not None else "",
            share_text(result),
            "" if result.guidance_gap is None else f"{result.guidance_gap:.3f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    verdicts = " ".join(filter(None, [verdict(race) for race in report.races]))
    return [*lines, verdicts, ""] if verdicts else lines
