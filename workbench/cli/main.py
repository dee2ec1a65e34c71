"""The entry point and its exit codes.

0: done. 2: bad input, with one line on stderr. 130: stopped by Ctrl-C, to be resumed. 75: stopped by
SIGTERM or SIGUSR1 with a checkpoint, to be run again. 1: a fault of the program.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer

from ..plugins import load_from_environment, load_plugin
from ..records import BadInput
from ..specs import VERBS
from ..workspace.job_end import REQUEUE
from . import chain, commands, jobs, report, serve, study

# A full disk, a read-only one, a folder without permission, a name that is too long.
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
)

# The base class of all complaints about arguments; typer keeps its click private.
UsageError: type[Any] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        sys.exit(run())
    except BrokenPipeError:  # whoever read our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def run(arguments: list[str] | None = None) -> int:
    """The exit code of a command; every expected error becomes one line on stderr."""
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        load_from_environment()
        load_plugins_of(arguments)
        code = build_app()(arguments or ["--help"], standalone_mode=False)
        return int(code or 0)
    except BadInput as error:
        return fail(str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        return fail("interrupted", 130)
    except UsageError as error:
        reason = " ".join(error.format_message().split()).rstrip(".")
        return fail(f"{reason}; see `{help_command(error)}`", 2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        return fail(disk_line(error), 2)
    except Exception as error:
        if type(error).__name__ != "Stopped":  # importing the class would import the verbs
            raise
        job = str(error)
        code = REQUEUE if getattr(error, "again", False) else 130
        if not job:
            return fail("stopped", code)
        return fail(f"stopped; continue with `workbench jobs resume {job}`", code)


def help_command(error: Any) -> str:
    """The command that shows the options of the verb that was called."""
    verb = getattr(error.ctx, "info_name", None)
    if verb in VERBS or verb in ("jobs", "app", "chain", "report"):
        return f"workbench {verb} --help"
    return "workbench --help"


def build_app() -> typer.Typer:
    """The Typer app with a command for every verb, plugins' verbs included."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Compress large diffusion transformers: measure the blocks' sensitivity, plan a smaller "
        "student, build it, distill it, compare it with its teacher. `workbench demo` shows the "
        "whole workflow.",
    )
    commands.add_to(app)
    jobs.add_to(app)
    chain.add_to(app)
    study.add_to(app)
    report.add_to(app)
    serve.add_to(app)
    return app


def load_plugins_of(arguments: list[str]) -> None:
    """Load the files of --plugin before commands are made: a plugin may add one."""
    for place, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag == "--plugin" and value:
            load_plugin(value)
        elif flag == "--plugin" and place + 1 < len(arguments):
            load_plugin(arguments[place + 1])


def disk_line(error: OSError) -> str:
    """One line for what the disk or its permissions refuse."""
    where = error.filename or "a file of the workspace"
    found = f"{where} cannot be written ({error.strerror})"
    return str(BadInput(found, "a disk with room that one can write to", "choose another path"))


def fail(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
