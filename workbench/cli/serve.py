"""`workbench app`: the app in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..records import BadInput, read_text
from ..workspace.store import default_workspace
from .commands import Workspace


def add_to(app: typer.Typer) -> None:
    app.command("app", short_help="Serve the app, to be opened in a browser.")(app_command)


def app_command(
    workspace: Workspace = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port to listen on.")
    ] = 7860,
    auth: Annotated[
        str | None, typer.Option(metavar="USER:PASS", help="Require this user name and password.")
    ] = None,
    auth_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of allowed logins, one USER:PASS per line."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name under which the app is reached, as behind a proxy; may be given several "
            "times. Addresses in numbers, localhost and this machine's name always work.",
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A folder outside of the workspace whose models and data pages may name; may be "
            "given several times.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show everything, change nothing.")
    ] = False,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Path under which a proxy serves the app, as in /workbench; the proxy takes it off.",
        ),
    ] = "",
) -> None:
    """Serve the workbench's app, to be opened in a browser."""
    from .. import ui

    logins = read_logins(auth, auth_file)
    ui.launch(
        workspace or default_workspace(),
        host,
        port,
        auth=logins or None,
        hosts=allow_host or [],
        folders=[path.expanduser().absolute() for path in folder or []],
        read_only=read_only,
        root_path=root_path,
    )


def read_logins(auth: str | None, auth_file: Path | None) -> list[tuple[str, str]]:
    """(user, password) pairs. Raises BadInput for a line without a colon between two words."""
    lines = []
    if auth:
        lines = [auth]
    elif auth_file:
        lines = read_text(auth_file, "auth file").split()
    logins = []
    for line in lines:
        user, _, password = line.partition(":")
        if not user or not password:
            found = "a login without a name or a password"
            raise BadInput(found, "USER:PASS", "write both, with a colon between")
        logins.append((user, password))
    return logins
