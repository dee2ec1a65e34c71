"""Flags that verbs share, and how their text becomes a spec. The Typer app itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..records import BadInput
from ..rules import Budget

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Makes large diffusion transformers small. TEACHER is demo, demo-12, a "
    "folder or a Hub id[@revision].",
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")
]
Workspace = Annotated[
    Path | None, typer.Option(help="Workspace folder [$WORKBENCH_WORKSPACE or ./workspace].")
]
Background = Annotated[
    bool, typer.Option("--background", help="Run as a job: print its id and return.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 .. [the first GPU, else cpu].")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Where the result goes [the workspace].")
]
Teacher = Annotated[str, typer.Argument(metavar="TEACHER")]
Prompts = Annotated[Path | None, typer.Option(help="Calibration prompts, one a line.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance.")]
Size = Annotated[int | None, typer.Option(min=1, help="Side of the pictures in pixels.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where a stopped run with the same -o ended.")
]
Sensitivity = Annotated[
    str | None, typer.Option(help="A sensitivity map: a file, or its id in the workspace.")
]


def at(path: Path | None) -> str | None:
    """Absolute: a job runs in another folder."""
    return str(path.expanduser().absolute()) if path else None


def found(text: str | None, folder: bool = False) -> str | None:
    """A file's path where there is one, else the name as it is (of something bundled, or of a
    record in the workspace). Only where a `folder` may be meant does one of that name count: a
    folder called `workbench` does not hide the recipe."""
    if text is None:
        return None
    path = Path(text).expanduser()
    there = path.exists() if folder else path.is_file()
    return str(path.absolute()) if there or path.suffix or "/" in text else text


def source(text: str) -> str:
    """A model's folder as an absolute path; demo teachers and Hub ids as they are."""
    path = Path(text).expanduser()
    return str(path.absolute()) if text not in ("demo", "demo-12") and path.exists() else text


def listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def numbers(text: str | None, flag: str) -> list[int] | None:
    try:
        return [int(item) for item in listed(text)] if text is not None else None
    except ValueError:
        raise BadInput(
            f"{flag} {text}", "block numbers with commas", "write it like 0,1,23"
        ) from None


def kept(text: str | None) -> int | dict[str, int] | None:
    """--keep: N, or STACK=N,.."""
    try:
        if text is None or "=" not in text:
            return int(text) if text is not None else None
        return {
            stack.strip(): int(count)
            for stack, _, count in (item.partition("=") for item in listed(text))
        }
    except ValueError:
        raise BadInput(f"--keep {text}", "N or STACK=N,..", "write it like --keep 12") from None


def limits(text: str | None) -> str | None:
    """--budget, checked before anything is loaded."""
    if text is not None:
        Budget.parse(text)
    return text


def factor(text: str | None) -> float | str | None:
    """--gain: a number, or length."""
    try:
        return text if text in (None, "length") else float(text)
    except ValueError:
        raise BadInput(f"--gain {text}", "a number, or length", "write it like --gain 2") from None
