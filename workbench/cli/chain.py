"""`workbench chain FILE`: queue profile, plan, build, distill and compare at once."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..workspace import chains
from ..workspace.cluster.settings import settings_of
from ..workspace.store import Store
from .commands import AsJson, Device, On, Workspace
from .jobs import chain_summary, list_of_links, summary
from .run import emit, silence_libraries

ABOUT = "Queue a chain of jobs at once: profile, plan, build, distill, compare."


def add_to(app: typer.Typer) -> None:
    app.command("chain", short_help=ABOUT)(chain_command)


def chain_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chain file (docs/jobs.md).")],
    as_json: AsJson = False,
    workspace: Workspace = None,
    device: Device = "",
    on: On = "",
) -> None:
    """Queue a chain of jobs at once: profile, plan, build, distill, compare.

    Each waits for the one before it; after one that failed the others are held. On a cluster they
    are sent at once, and the engine keeps their order.
    """
    path = file.expanduser().absolute()
    store = Store(workspace)
    specs = chains.specs_of(chains.ChainFile.load(path), store, path.parent)
    silence_libraries()
    from .. import tasks

    with contextlib.redirect_stdout(sys.stderr):  # of the others the inputs are not there yet
        tasks.check(specs[0].verb, specs[0], store, device)
    settings = settings_of(on, store.workspace) if on else None
    made = chains.submit(store, specs, device=device, on=settings)
    chain = chains.find(store, made[0].chain)
    facts = {**chain_summary(chain), "jobs": [summary(job) for job in chain.jobs]}
    emit(facts, as_json, list_of_links)
