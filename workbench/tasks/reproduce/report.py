"""What `reproduce` tells: the rows of its tables, who is first and by how much, the page and the
Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ...records import Comparison, write_atomic
from .tables import Group, Table

OURS = "workbench"  # the row that is to be first
PICTURES = 5  # beside each row


def results(table: str, group: Group, comparisons: Iterable[Path]) -> list[dict[str, Any]]:
    """The students' rows of a group, from its comparisons; every comparison begins with the
    teacher.
    """
    rows = []
    for file in comparisons:
        teacher, *students = Comparison.load(file).models
        for model in students:
            score = model.scores["scenes"]
            rows.append(
                {
                    "table": table,
                    "group": group.name,
                    "row": model.name,
                    "teacher": group.teacher,
                    "parameters": model.parameters,
                    "ratio": model.parameters / teacher.parameters,
                    "score": score["overall"],
                    "low": score["low"],
                    "high": score["high"],
                    "retention": model.retention["scenes"],
                    "difference": model.difference.get("scenes"),
                    "teacher_score": teacher.scores["scenes"]["overall"],
                }
            )
    return rows


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Who is first among rows trained alike, and whose intervals reach into its own; empty without
    `workbench`.

    Longer trained rows (`.., 6 x`) are a race of their own.
    """
    said = []
    for ending in ("", " x"):
        race = sorted(
            (r for r in rows if r["row"].endswith(" x") == bool(ending)), key=lambda r: -r["score"]
        )
        if len(race) < 2 or not any(r["row"].startswith(OURS) for r in race):
            continue
        first = [r for r in race if r["score"] == race[0]["score"]]
        near = [
            f"{r['row']} ({r['score']:.3f})"
            for r in race[len(first) :]
            if r["high"] >= race[0]["low"]
        ]
        who = f"{' and '.join(r['row'] for r in first)} {'is' if len(first) == 1 else 'are'} first"
        if near:
            told = f"but the interval{'s' * (len(near) > 1)} of {', '.join(near)} overlap{'s' * (len(near) == 1)}"
        else:
            told = (
                f"{race[len(first)]['row']} is next; their intervals do not overlap"
                if race[len(first) :]
                else "and there are no others"
            )
        said.append(f"{who}, {told}")
    return ". ".join(said) + "." if said else ""


def strips(out: Path, files: Iterable[Path]) -> dict[str, list[tuple[str, str]]]:
    """Model -> a few of its pictures, as (address from the report's folder, prompt), from all kinds
    of prompts; the teacher's first.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        seen = Comparison.load(file)
        chosen = [len(seen.prompts) * (2 * i + 1) // (2 * PICTURES) for i in range(PICTURES)]
        for name, images in seen.images.items():
            folder = file.parent.relative_to(out)
            found.setdefault(
                name,
                [((folder / images[i]).as_posix(), seen.prompts[i]) for i in dict.fromkeys(chosen)],
            )
    return found


def write_page(
    out: Path,
    tables: dict[str, Table],
    rows: list[dict[str, Any]],
    files: dict[str, list[Path]],
    minutes: float,
) -> Path:
    """One HTML page without outside requests, and the same as Markdown and JSON. `files`: the
    comparisons of each "table group".
    """
    source = (resources.files("workbench.tasks.reproduce") / "page.html.jinja").read_text("utf-8")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    links = {
        key: [path.with_name("index.html").relative_to(out).as_posix() for path in paths]
        for key, paths in files.items()
    }
    pictures = {key: strips(out, paths) for key, paths in files.items()}
    page = template.render(
        tables=tables, rows=rows, pages=links, pictures=pictures, minutes=minutes, verdict=verdict
    )
    write_atomic(out / "index.html", page)
    write_atomic(out / "rows.json", json.dumps({"rows": rows}, indent=1) + "\n")
    write_atomic(out / "results.md", markdown(tables, rows))
    return out / "index.html"


def markdown(tables: dict[str, Table], rows: list[dict[str, Any]]) -> str:
    """The tables as Markdown, for docs/results.md."""
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"### {table.title} (arXiv {table.paper})", ""]
        for group in table.groups:
            found = [row for row in rows if (row["table"], row["group"]) == (name, group.name)]
            if not found:
                continue
            lines += [
                f"**{group.name}** of `{group.teacher}`, which scores "
                f"{found[0]['teacher_score']:.3f}.",
                "",
                "| row | parameters | share | score | 95 % interval | of the teacher |",
                "|---|---:|---:|---:|---:|---:|",
            ]
            for r in found:
                kept = "" if r["retention"] is None else f"{100 * r['retention']:.1f} %"
                lines.append(
                    f"| {r['row']} | {r['parameters'] / 1e6:.2f} M | "
                    f"{100 * r['ratio']:.1f} % | {r['score']:.3f} | "
                    f"{r['low']:.3f} to {r['high']:.3f} | {kept} |"
                )
            lines += ["", verdict(found), ""] if verdict(found) else [""]
    return "\n".join(lines)
