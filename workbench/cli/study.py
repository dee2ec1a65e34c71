"""`workbench study`: create a blind study, serve it to raters, print and export what they voted."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..records import BadInput, Study
from ..specs.base import facts
from ..specs.study import StudySpec
from ..workspace.store import Store
from .commands import AsJson, Workspace, parameter, spec_from
from .console import Bar, cell, table
from .run import emit

ABOUT = "Blind studies: pairs, ratings or ABX, for people to vote."
Folder = Annotated[str, typer.Argument(metavar="STUDY", help="A study's folder, or its name.")]


def add_to(app: typer.Typer) -> None:
    study = typer.Typer(help=ABOUT, rich_markup_mode=None, add_completion=False)
    study.command("create")(create_command())
    study.command("serve")(serve)
    study.command("links")(links)
    study.command("results")(results)
    study.command("export")(export)
    app.add_typer(study, name="study", short_help=ABOUT)


# --- create ---------------------------------------------------------------------------------------


def create_command() -> Callable[..., None]:
    """The function that Typer calls, with the fields of StudySpec as its flags."""
    fields = [fact for fact in facts(StudySpec) if fact.name != "plugins"]

    def call(**values: Any) -> None:
        as_json = values.pop("as_json")
        store = Store(values.pop("workspace"))
        create(spec_from(StudySpec, values), store, as_json)  # type: ignore[arg-type]

    parameters = [parameter(fact) for fact in fields]
    for name, annotation, default in (("as_json", AsJson, False), ("workspace", Workspace, None)):
        keyword = inspect.Parameter.KEYWORD_ONLY
        extra = inspect.Parameter(name, keyword, default=default, annotation=annotation)
        parameters.append(extra)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    call.__doc__ = inspect.getdoc(StudySpec)
    return call


def create(spec: StudySpec, store: Store, as_json: bool) -> None:
    from ..study.create import Design, Source
    from ..study.create import create as create_study

    sources = [Source.load(comparison_folder(store, name)) for name in spec.comparisons]
    design = Design(
        kind=spec.kind,
        models=tuple(spec.models or ()),
        all_pairs=not spec.students_only_with_first,
        raters=spec.raters,
        per_rater=spec.per_rater,
        checks=spec.checks,
        most_failed=spec.most_failed,
        prompts=spec.prompts,
        seed=spec.seed,
        invited_only=spec.invited_only,
    )
    out = (
        Path(spec.out) if spec.out else free_folder(store, f"{sources[0].folder.name}-{spec.kind}")
    )
    study: Study | None = None
    with Bar("study") as bar:
        for progress in create_study(sources, design, out):
            bar(progress)
            study = progress.result or study
    assert study is not None
    emit(facts_of(study, out), as_json, created)


def comparison_folder(store: Store, name: str) -> Path:
    entry = store.find("comparison", name)
    return Path(entry.path) if entry is not None else Path(name)


def free_folder(store: Store, name: str) -> Path:
    """A new folder in the workspace's `studies`."""
    folder = store.workspace / "studies"
    path = folder / name
    count = 1
    while path.exists():
        count += 1
        path = folder / f"{name}-{count}"
    return path


def facts_of(study: Study, folder: Path) -> dict[str, Any]:
    own = study.per_rater or len(study.items)
    return {
        "study": str(folder),
        "kind": study.kind,
        "models": study.models,
        "items": len(study.items),
        "raters": study.raters,
        "items_per_rater": min(own, len(study.items)) + study.checks_per_rater,
        "attention_checks_per_rater": study.checks_per_rater,
    }


def created(facts: dict[str, Any]) -> str:
    lines = [f"{name.replace('_', ' ')}: {cell(value)}" for name, value in facts.items()]
    return "\n".join([*lines, f"Next: workbench study serve {facts['study']}"])


# --- serve ----------------------------------------------------------------------------------------


def serve(
    study: Folder,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Port.")] = 7870,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name under which raters reach it, as behind a proxy."),
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Serve a study to raters: a page with this study and nothing else."""
    folder = study_folder(study, workspace)
    from ..web import raters

    for line in link_lines(folder, f"http://{host}:{port}"):
        print(line, flush=True)
    raters.serve(folder, host, port, allow_host or [])


def links(
    study: Folder,
    address: Annotated[
        str, typer.Option(metavar="URL", help="Where raters reach the study.")
    ] = "http://127.0.0.1:7870",
    as_json: AsJson = False,
    workspace: Workspace = None,
) -> None:
    """Print a link for each rater. Opening it again, anywhere, goes on where the rater was."""
    from ..study.secrets import Codes

    folder = study_folder(study, workspace)
    count = Study.load(folder / "study.json").raters
    codes = Codes(folder)
    own = [f"{address.rstrip('/')}/as/{codes.rater(rater)}" for rater in range(count)]
    emit({"links": own}, as_json, lambda result: "\n".join(result["links"]))


def link_lines(folder: Path, address: str) -> list[str]:
    """What raters open. Raises BadInput for a folder without a study."""
    from ..study.secrets import Codes

    if Study.load(folder / "study.json").invited_only:
        return [f"Links for raters: workbench study links {folder} --address {address}"]
    return [f"Link for raters: {address}/join/{Codes(folder).open_link()}"]


def study_folder(name: str, workspace: Path | None) -> Path:
    """A study by path or by its name in the workspace. Raises BadInput where there is none."""
    path = Path(name).expanduser().absolute()
    if path.name == "study.json":
        path = path.parent
    named = Store(workspace).workspace / "studies" / name
    for folder in (path, named):
        if (folder / "study.json").is_file():
            return folder
    raise BadInput(f"no study {name}", "a folder with a study.json", "check the path")


# --- results --------------------------------------------------------------------------------------


def results(
    study: Folder,
    everyone: Annotated[
        bool, typer.Option("--everyone", help="Count raters who failed attention checks too.")
    ] = False,
    as_json: AsJson = False,
    workspace: Workspace = None,
) -> None:
    """Print what raters voted, with intervals; may be asked while the study runs."""
    from ..study.results import results_of
    from ..study.words import report

    found = results_of(study_folder(study, workspace), everyone)
    data = {**found.model_dump(mode="json"), "excluded": found.excluded}
    emit(data, as_json, lambda _: report(found, table_of))


def table_of(rows: list[dict[str, Any]]) -> str:
    return table(rows)


def export(
    study: Folder,
    csv: Annotated[
        bool, typer.Option("--csv", help="One line per vote (the only format so far).")
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write [stdout].")
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Write all votes as CSV: one line per vote, with the models that were shown."""
    from ..records import write_atomic
    from ..study.export import votes_csv

    text = votes_csv(study_folder(study, workspace))
    if out is None:
        print(text, end="", flush=True)
        return
    write_atomic(out, text)
    print(out, flush=True)
