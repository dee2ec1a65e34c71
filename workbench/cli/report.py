"""`workbench report`: finished comparisons as one page and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..records import BadInput, write_atomic
from ..workspace.store import Store
from .commands import AsJson, Workspace
from .console import page
from .run import emit
from .study import comparison_folder

ABOUT = "One page and one Markdown table of finished comparisons, worst differences first."
Comparisons = Annotated[
    list[str],
    typer.Argument(metavar="COMPARISONS", help="Folders, or names in the workspace."),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FILE.html", help="The page; the table lies beside it."),
]
Worst = Annotated[int, typer.Option("--worst", min=0, help="Pairs of pictures per comparison.")]


def add_to(app: typer.Typer) -> None:
    app.command("report", short_help=ABOUT)(report)


def report(
    comparisons: Comparisons,
    out: Out = Path("report.html"),
    worst: Worst = 12,
    as_json: AsJson = False,
    workspace: Workspace = None,
) -> None:
    """Write one self-contained page and one Markdown table of finished comparisons.

    Several comparisons of the same prompts and seeds make one table and one drawing of cost against
    score.
    """
    from ..charts.report import Source, report_html, report_markdown
    from ..charts.students import check_same

    if out.suffix != ".html":
        raise BadInput(f"-o {out}", "a file that ends in .html", "choose another -o")
    store = Store(workspace)
    sources = [Source.load(comparison_folder(store, name)) for name in comparisons]
    loaded = [source.comparison for source in sources]
    check_same(loaded)
    write_atomic(out, report_html(sources, worst))
    table = write_atomic(out.with_suffix(".md"), report_markdown(loaded))
    models = sum(len(comparison.models) for comparison in loaded)
    facts: dict[str, Any] = {"page": str(out), "table": str(table), "models": models}
    emit(facts, as_json, page)
